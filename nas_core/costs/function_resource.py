"""A resource from a Python function: what a block costs, in a unit of the user's own.

What the function is given is read off the names of its parameters: ``block``
(kind and parameters as a mapping), ``position``, ``choice``, or ``module`` and
``inputs`` (a part of the network and examples of its inputs); its keyword-only
parameters are its settings in the study.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from nas_core.base.callables import settings_of, wanted_of
from nas_core.base.errors import PluginError
from nas_core.costs.parts import base_genotypes, block_parts, fixed_parts
from nas_core.costs.profiler import PROFILERS, Measured, Measurement, Profiler, RowWriter
from nas_core.families.family import Family, Part
from nas_core.records.evaluations import Cost
from nas_core.records.resources import Combine, Resource
from nas_core.space.genotypes import Genotype
from nas_core.space.rules import BlockId

Function = Callable[..., float]
OF_BLOCKS = ("block", "position", "choice")
OF_MODULES = ("module", "inputs")


class FunctionProfiler(Profiler):
    """What ``resource`` makes of a function."""

    function: ClassVar[Function]
    wanted: ClassVar[tuple[str, ...]]
    fixed: ClassVar[float]  # what every network costs beside its blocks
    whole_networks = False

    def measure(
        self, family: Family, genotypes: Sequence[Genotype], resources: Sequence[str], *, blocks: bool
    ) -> list[Cost]:
        if not blocks:
            return []
        writer, (resource,), rows = RowWriter.of(self, family), self.resources, list[Cost]()
        for base in base_genotypes(family.space):
            size = family.space.resolution_of(base)
            rows.append(writer.fixed_part(size, resource.name, _measured(partial(self._fixed, family, base))))
            for position, count in enumerate(family.space.num_choices):
                for choice in range(count):
                    value = _measured(partial(self._block, family, base, (position, choice)))
                    rows.append(writer.block((position, choice), size, resource.name, value))
        return rows

    def _fixed(self, family: Family, base: Genotype) -> float:
        if set(self.wanted) & set(OF_MODULES):
            return self._parts(fixed_parts(family, base))
        return self.fixed

    def _block(self, family: Family, base: Genotype, block: BlockId) -> float:
        if set(self.wanted) & set(OF_MODULES):
            return self._parts(block_parts(family, base, block))
        position, choice = block
        spec = family.space.positions[position].blocks[choice]
        offered = {"block": spec.as_dict(), "position": position, "choice": choice}
        return self._called({name: offered[name] for name in self.wanted})

    def _parts(self, parts: Sequence[Part]) -> float:
        """The parts together: their sum, or the largest of them."""
        built = [part for part in parts if not part.is_no_op]
        values = [self._called({name: getattr(self, f"_{name}")(part) for name in self.wanted}) for part in built]
        (resource,) = self.resources
        return sum(values) if resource.combine == "sum" else max(values, default=0.0)

    def _module(self, part: Part) -> Any:
        return part.build().eval()

    def _inputs(self, part: Part) -> list[Any]:
        import torch

        kind = getattr(torch, part.dtype)
        return [torch.zeros(part.rows, *shape, dtype=kind) for shape in part.shapes]

    def _called(self, given: dict[str, Any]) -> float:
        own = {name: getattr(self.settings, name) for name in type(self).Settings.model_fields}
        value = float(type(self).function(**given, **own))
        if not math.isfinite(value):  # the largest of several parts would hide it
            raise ValueError(f"{self.resources[0].name} is {value}")
        return value


def _measured(value: Callable[[], float]) -> Measured:
    """The value, or the exception that came up: one block's failure is that block's row."""
    try:
        return Measurement(value=value())
    except Exception as error:
        return error


def resource(
    name: str, *, unit: str, combine: Combine = "sum", measured: bool = False, fixed: float = 0.0, version: int = 1
) -> Callable[[Function], Function]:
    """Register the function under it as what gives a resource; ``fixed`` is what every network costs beside its blocks.

    Raises:
        PluginError: if the function takes what is not there, or has no docstring.
    """

    def register(function: Function) -> Function:
        if not (function.__doc__ or "").strip():
            raise PluginError(f"resource {name}", "no docstring", "a first line that says what it is")
        wanted = wanted_of(function, (*OF_BLOCKS, *OF_MODULES))
        if set(wanted) & set(OF_BLOCKS) and set(wanted) & set(OF_MODULES):
            raise PluginError(f"resource {name}", ", ".join(wanted), "what a block is, or modules; not both")
        made = type(
            function.__name__,
            (FunctionProfiler,),
            {
                "__doc__": function.__doc__,
                "__module__": function.__module__,
                "name": name,
                "version": version,
                "Settings": settings_of(function, function.__name__),
                "resources": (Resource(name=name, unit=unit, combine=combine, measured=measured),),
                "function": staticmethod(function),
                "wanted": wanted,
                "fixed": fixed,
                "needs_torch": bool(set(wanted) & set(OF_MODULES)),
            },
        )
        PROFILERS.add(made)
        return function

    return register
