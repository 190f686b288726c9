"""A block kind from any ``nn.Module`` class whose constructor takes channels in, channels out and a stride."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from nas_core.base.callables import settings_of, wanted_of
from nas_core.base.errors import PluginError
from nas_core.families.blocks import BLOCKS, BlockKind, BlockSettings
from nas_core.space.genotypes import PlacedBlock

if TYPE_CHECKING:
    from torch import nn

M = TypeVar("M", bound=type)
SHAPE = ("in_channels", "out_channels", "stride")


class ModuleBlock(BlockKind):
    """What ``block`` makes of a module class."""

    made_of: Callable[..., Any]
    fits: Callable[[int, int, int], str] | None

    def misfit(self, place: PlacedBlock) -> str:
        fits = type(self).fits
        return fits(place.in_channels, place.out_channels, place.stride) if fits else ""

    def build(self, in_channels: int, out_channels: int, stride: int) -> "nn.Module":
        given = {name: getattr(self.settings, name) for name in type(self).Settings.model_fields}
        module: nn.Module = type(self).made_of(in_channels, out_channels, stride, **given)
        return module


def block(
    name: str, *, fits: Callable[[int, int, int], str] | None = None, version: int = 1, **described: Any
) -> Callable[[M], M]:
    """Register the module class under it as a block kind.

    The constructor takes (in_channels, out_channels, stride) by position and
    settings by keyword; ``described`` says what these are where annotations do
    not: ``kernel="Side of the kernel."`` or a pydantic ``Field``. ``fits(in,
    out, stride)`` says what a place would have to be, or "" where the block fits.

    Raises:
        PluginError: if the constructor takes something else, or the class has no docstring.
    """

    def register(module: M) -> M:
        constructor: Any = module.__init__  # type: ignore[misc]
        summary = (module.__dict__.get("__doc__") or "").strip()
        if not summary:
            raise PluginError(f"block kind {name}", "no docstring", "a first line that says what the block is")
        positional = wanted_of(_without_self(constructor), SHAPE)
        if positional != SHAPE:
            found = f"a constructor of ({', '.join(positional)})"
            raise PluginError(f"block kind {name}", found, f"({', '.join(SHAPE)}, *, settings)")
        settings = settings_of(constructor, module.__name__, described)
        strict = type(
            settings.__name__,
            (settings,),
            {"model_config": BlockSettings.model_config, "__module__": module.__module__},
        )
        made = type(
            f"{module.__name__}Kind",
            (ModuleBlock,),
            {
                "__doc__": summary,
                "__module__": module.__module__,
                "name": name,
                "version": version,
                "Settings": strict,
                "made_of": staticmethod(module),
                "fits": staticmethod(fits) if fits else None,
            },
        )
        BLOCKS.add(made)
        return module

    return register


def _without_self(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor as it is called: without its first parameter."""
    import functools
    import inspect

    signature = inspect.signature(constructor)
    _, *rest = signature.parameters.values()

    @functools.wraps(constructor)
    def called(*args: Any, **kwargs: Any) -> Any:
        return constructor(*args, **kwargs)

    called.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return called
