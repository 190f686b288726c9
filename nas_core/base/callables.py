"""Functions as plug-ins: parameters' names say what they are given, keyword-only parameters are their settings."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from nas_core.base.errors import PluginError
from nas_core.base.settings import Section


def wanted_of(function: Callable[..., Any], offered: Iterable[str]) -> tuple[str, ...]:
    """Which of the things offered the function takes, by the names of its positional parameters.

    Raises:
        PluginError: for a parameter that nothing of what is offered is called.
    """
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    for name in names:
        if name not in offered:
            advice = "A setting of your own is keyword-only: put it behind a `*`."
            raise PluginError(
                f"{function.__qualname__}()", f"parameter {name}", f"some of: {', '.join(offered)}", advice
            )
    return tuple(names)


def settings_of(function: Callable[..., Any], name: str, described: dict[str, Any] | None = None) -> type[Section]:
    """A section with the function's keyword-only parameters.

    Each is described by ``Annotated[int, "what it is"]``, by a pydantic
    ``Field`` as its default or in its annotation, or in ``described``.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        extra = (described or {}).get(parameter.name)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = _field(hints.get(parameter.name, type(default)), default, extra)
    made: type[Section] = create_model(f"{name}Settings", __base__=Section, __module__=function.__module__, **fields)
    return made


def _field(hint: Any, default: Any, extra: Any) -> tuple[Any, Any]:
    if isinstance(default, FieldInfo):
        return hint, default
    if isinstance(extra, FieldInfo):
        return hint, extra
    words = extra if isinstance(extra, str) else None
    if get_origin(hint) is Annotated:
        texts = [mark for mark in get_args(hint)[1:] if isinstance(mark, str)]
        words = words or (texts[0] if texts else None)
    return hint, Field(default, description=words) if words else Field(default)
