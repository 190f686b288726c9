"""A network made of a trained model outside its family: narrower everywhere, pruned, or another model of timm's.

It is described as the family's own networks are, by what makes the model and
what is changed in it, so that it is trained, stored and loaded like them.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from nas_core.families.family import FAMILIES
from nas_core.families.model.assembling import learning
from nas_core.families.model.rebuild import Change, changed, reshape
from nas_core.families.model.reference import Reference
from nas_core.families.trained_model import TrainedModel
from nas_core.workloads.workload import Sample


@dataclass(frozen=True, kw_only=True)
class Remade:
    """The model of the family, or another one ``instead``, with changes; ``shapes`` are of tensors that differ from it.

    ``label`` is what tables call the network.
    """

    family: TrainedModel
    label: str
    instead: str = ""
    changes: Mapping[str, Change] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        return self.family.space.resolutions[0]

    @property
    def in_channels(self) -> int:
        return self.family.sample.shape[0]

    @property
    def reference(self) -> Reference:
        if self.instead:
            return replace(self.family.reference, model=self.instead, checkpoint=None, arguments={})
        return self.family.own

    def module(self) -> nn.Module:
        """The network with the weights that its maker gives it; tensors of other shapes are zeros."""
        fresh = self.reference.fresh() if self.instead else copy.deepcopy(self.family.structure.network)
        return reshape(changed(learning(fresh), self.changes), self.shapes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description, the ``architecture.json`` that travels with the trained network."""
        sample = self.family.sample
        return {
            "family": FAMILIES.identity(self.family.name),
            "settings": self.family.settings.model_dump(mode="json", exclude={"kind"}),
            "sample": {"shape": list(sample.shape), "num_outputs": sample.num_outputs, "dtype": sample.dtype},
            "label": self.label,
            "instead": self.instead,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "model": self.reference.made_by,
            "changes": dict(self.changes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Remade":
        """The network described; its plug-ins have to be imported."""
        given = data["sample"]
        sample = Sample(shape=tuple(given["shape"]), num_outputs=given["num_outputs"], dtype=given["dtype"])
        family = TrainedModel(TrainedModel.Settings.model_validate(data["settings"]), sample)
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        return cls(family=family, label=data["label"], instead=data["instead"], changes=data["changes"], shapes=shapes)
