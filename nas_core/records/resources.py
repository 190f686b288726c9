"""Resources that networks cost: their units, how parts combine, whether they are counted or measured.

Profilers declare what they give (``declare``); whoever reads costs asks here.
"""

from dataclasses import dataclass
from typing import Literal

from nas_core.base.errors import PluginError, UnknownNameError

Combine = Literal["sum", "max"]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something a network costs. ``combine`` says how parts make a whole; measured ones depend on the device."""

    name: str
    unit: str
    combine: Combine = "sum"
    measured: bool = False


_known: dict[str, Resource] = {}


def declare(resource: Resource) -> None:
    """Make a resource known; the same one may be declared again, another of its name may not.

    Raises:
        PluginError: if the name is taken by a resource of another unit or another way to combine.
    """
    known = _known.setdefault(resource.name, resource)
    if known != resource:
        raise PluginError(f"resource {resource.name}", f"{resource} and {known}", "one meaning for one name")


def resource_of(name: str) -> Resource:
    """The resource of this name; raises UnknownNameError, with the known ones, if nothing gives it."""
    if name not in _known:
        raise UnknownNameError("resource", repr(name), f"one of: {', '.join(_known)}")
    return _known[name]


def combine_of(name: str) -> Combine:
    """How parts of a resource make a whole; of an unknown one they add up."""
    return _known[name].combine if name in _known else "sum"


def units() -> dict[str, str]:
    """Name -> unit of every known resource."""
    return {name: resource.unit for name, resource in _known.items()}
