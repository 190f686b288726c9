"""Things by name, explicit and loud: a duplicate raises, an unknown name lists the known ones."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from nas_core.base.errors import UnknownNameError

T = TypeVar("T")


class Names(Generic[T]):
    """Named things of one sort.

    >>> spaces = Names[int]("search space")
    >>> spaces.add("tiny")(3)
    3
    >>> spaces["tiny"]
    3
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._things: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Decorator that files its argument under ``name``."""

        def file(thing: T) -> T:
            assert name not in self._things, f"{self.noun} {name!r} is registered twice"
            self._things[name] = thing
            return thing

        return file

    def __getitem__(self, name: str) -> T:
        try:
            return self._things[name]
        except KeyError:
            known = ", ".join(sorted(self._things))
            raise UnknownNameError(self.noun, repr(name), f"one of: {known}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things))
