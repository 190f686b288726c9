"""One network of a family, as something to train and hand over. No torch at import."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_core.families.family import FAMILIES, Family
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample


@dataclass(frozen=True, kw_only=True)
class Member:
    """A genotype of a family whose networks are no chains: the family builds it wherever its code is."""

    family: Family
    genotype: Genotype

    @property
    def label(self) -> str:
        """What tables call the network."""
        return str(self.genotype)

    @property
    def resolution(self) -> int:
        return self.family.space.resolution_of(self.genotype)

    @property
    def in_channels(self) -> int:
        return self.family.space.in_channels or self.family.sample.shape[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description, the ``architecture.json`` that travels with a trained winner."""
        return {
            "family": FAMILIES.identity(self.family.name),
            "settings": self.family.settings.model_dump(mode="json", exclude={"kind"}),
            "sample": self.family.sample.as_dict(),
            "space_id": self.family.space.space_id,
            "genotype": str(self.genotype),
            **self.family.origin(self.genotype),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Member":
        """The network described; its family has to be registered (a plug-in's: imported)."""
        family = FAMILIES[data["family"]["name"]]
        sample = Sample.from_dict(data["sample"])
        made = family(family.Settings.model_validate(data["settings"]), sample)
        return cls(family=made, genotype=Genotype.parse(data["genotype"]))
