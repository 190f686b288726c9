"""A designed structure as a network for certain images: all that is needed to build and train it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_core.base.identity import content_id
from nas_core.deepmad.structure import Structure


@dataclass(frozen=True, kw_only=True)
class DesignedNetwork:
    """A structure with the channels of its images and its classes.

    The closed forms count three input channels and no classifier: a network
    for gray images has a slightly smaller stem than they say.
    """

    structure: Structure
    in_channels: int
    num_classes: int

    @property
    def resolution(self) -> int:
        """Side of the input images, pixels."""
        return self.structure.skeleton.resolution

    @property
    def label(self) -> str:
        """What tables call the network: its family and its structure's id."""
        return f"{self.structure.skeleton.family}-{content_id(self.structure.as_dict())}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description, the ``architecture.json`` that travels with the trained network."""
        shape = {"in_channels": self.in_channels, "num_classes": self.num_classes}
        return {**self.structure.as_dict(), **shape}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "DesignedNetwork":
        """Raises as ``Structure.from_dict``."""
        return cls(
            structure=Structure.from_dict(data), in_channels=data["in_channels"], num_classes=data["num_classes"]
        )
