"""Registries: what can be brought, by name. A duplicate is an error that says where both come from.

Six kinds of things are registered alike: a family of networks, a block kind, a
workload, a scorer, a profiler, a searcher. Each is one class that carries
``name``, ``version`` (raised when its results change), ``Settings`` (its part
of the YAML, every field described) and a first docstring line that people read
in ``mathnas plugins`` and in forms. Nothing else in the code knows its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from nas_core.base.errors import PluginError, UnknownNameError
from nas_core.base.settings import Section


class Registered:
    """What every class that can be registered carries."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when its results change: rows of another version are not reused
    Settings: ClassVar[type[Section]] = Section
    needs_torch: ClassVar[bool] = True


T = TypeVar("T", bound=Registered)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a registered class comes from; ``code`` is empty for our own, whose versions say when results change.

    ``source`` names the module or file, ``distribution`` name and version of the
    installed package it is part of, ``code`` the hash of the plug-in's source.
    """

    source: str = "mathnas"
    distribution: str = ""
    code: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.distribution})" if self.distribution else self.source


OURS = Origin()


class Registry(Generic[T]):
    """Classes of one kind by name; ``add`` is a decorator."""

    importing: ClassVar[Origin] = OURS  # what is being imported: plug-ins set it while their modules run

    def __init__(self, kind: str, protocol: type) -> None:
        self.kind, self.protocol = kind, protocol
        self._entries: dict[str, tuple[type[T], Origin]] = {}

    def add(self, thing: type[T]) -> type[T]:
        """File the class under its name.

        Raises:
            PluginError: if it is not what the protocol asks for, or the name is taken.
        """
        where = f"{self.kind} {getattr(thing, 'name', None) or getattr(thing, '__name__', thing)}"
        if problem := wrong_with(thing, self.protocol):
            raise PluginError(where, problem, f"a class derived from {self.protocol.__name__}, complete and described")
        taken = self._entries.get(thing.name)
        if taken is not None and not _same_code(taken[0], thing):
            found, first = f"the name twice: {Registry.importing} and {taken[1]}", "one name for one class"
            raise PluginError(where, found, first)
        self._entries[thing.name] = thing, Registry.importing
        return thing

    def forget(self, origin: Origin) -> None:
        """Drop what an origin registered, before its code is imported again."""
        self._entries = {name: entry for name, entry in self._entries.items() if entry[1].source != origin.source}

    def __getitem__(self, name: str) -> type[T]:
        return self._entry(name)[0]

    def origin(self, name: str) -> Origin:
        return self._entry(name)[1]

    def identity(self, name: str) -> dict[str, Any]:
        """What of the class's code its results depend on: version, and for a plug-in its distribution and source."""
        thing, origin = self._entry(name)
        known: dict[str, Any] = {"name": name, "version": thing.version}
        return {**known, "distribution": origin.distribution, "code": origin.code} if origin.code else known

    def _entry(self, name: str) -> tuple[type[T], Origin]:
        try:
            return self._entries[name]
        except KeyError:
            advice = "A plug-in's is known once `plugins:` of the study names the plug-in."
            raise UnknownNameError(self.kind, repr(name), f"one of: {', '.join(self)}", advice) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def wrong_with(thing: Any, protocol: type) -> str:
    """What keeps a class from being registered; "" if nothing does."""
    if not (isinstance(thing, type) and issubclass(thing, protocol)):
        return f"{thing!r:.100}, which is not derived from it"
    return _incomplete(thing)


def _incomplete(thing: Any) -> str:
    if not isinstance(getattr(thing, "name", None), str) or not thing.name:
        return "no `name`"
    if isinstance(thing.version, bool) or not isinstance(thing.version, int):
        return f"version {thing.version!r:.50}, no whole number"
    if missing := sorted(getattr(thing, "__abstractmethods__", ())):
        return f"no {', '.join(missing)}"
    if not summary_of(thing):
        return "no docstring (its first line is what people read)"
    if not (isinstance(thing.Settings, type) and issubclass(thing.Settings, Section)):
        return f"Settings {thing.Settings!r:.100}, no nas_core.Section"
    silent = [name for name, field in thing.Settings.model_fields.items() if not field.description]
    return f"settings without a description: {', '.join(silent)}" if silent else ""


def summary_of(thing: type) -> str:
    """The first line of the class's own docstring."""
    lines = (thing.__dict__.get("__doc__") or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _same_code(one: type, other: type) -> bool:
    """Whether both are one class, imported twice: as happens where workers unpickle what the driver registered."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
