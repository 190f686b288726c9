"""Profiler of measured latency on the machine at hand (``timing`` says how it is measured)."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field

from nas_core.base.errors import ConfigError
from nas_core.base.machine import version_of
from nas_core.base.settings import Section
from nas_core.costs.conditions import CUDA_GRAPH, check_here, check_installed, is_of_files, needs_cuda
from nas_core.costs.measure_files import SESSIONS
from nas_core.costs.parts import base_genotypes
from nas_core.costs.profiler import PROFILERS, Profiler, RowWriter
from nas_core.families.family import Family
from nas_core.records.evaluations import Cost
from nas_core.records.resources import Resource
from nas_core.space.genotypes import Genotype

RESOURCE = "latency_ms"
CARRIED = {"onnxruntime": "onnx", "eager": "pt2"}  # runtimes of what is measured elsewhere, and their files' suffixes


@PROFILERS.add
class LatencyProfiler(Profiler):
    """Milliseconds per batch on this device, undisturbed, and the spread. A block that does nothing costs 0."""

    name = "latency"
    needs_networks = True
    version = 3  # whole networks with the preparation of their inputs
    resources = (Resource(name=RESOURCE, unit="milliseconds per batch", measured=True),)

    class Settings(Section):
        batch_size: int = Field(1, ge=1, le=65_536, description="Inputs per batch while latency is measured.")
        num_threads: int = Field(1, ge=1, le=1024, description="CPU threads while latency is measured.")
        warmup: int = Field(5, ge=0, le=10_000, description="Untimed runs before the timed ones.")
        repeats: int = Field(
            30,
            ge=3,
            le=100_000,
            description="Timed runs per block; the faster half counts, of files that of the fastest of some sessions.",
        )
        channels_last: bool = Field(False, description="Measure latency with channels-last activations and weights.")
        runtime: Literal["eager", "compile", "cuda-graph", "onnxruntime", "openvino"] = Field(
            "eager",
            description="What runs the networks measured: torch, its compiler, a GPU's graph of kernels, or a runtime "
            "of ONNX files.",
        )
        device: Literal["auto", "cpu", "cuda"] = Field(
            "auto", description="Device measured; auto: a GPU where there is one."
        )
        where: Literal["here", "elsewhere"] = Field(
            "here", description="Whether it is measured here, or on another machine by `mathnas measure`."
        )

    @property
    def identity(self) -> dict[str, Any]:
        known = {**super().identity, "torch": version("torch")}
        runtime = known.pop("runtime")
        if not self.measures_here:  # whose versions are the other machine's
            del known["torch"]
            return {**known, "runtime": runtime}
        del known["where"]
        if runtime == "eager":  # as before there was a choice
            return known
        check_installed(runtime)
        if is_of_files(runtime):
            return {**known, "sessions": SESSIONS, runtime: version_of(runtime)}
        own = {"unused": "left out"} if runtime == "compile" else {}  # weights of blocks that are not chosen
        return {**known, **own, runtime: version("torch")}

    @property
    def measures_here(self) -> bool:
        return bool(self.settings.where == "here")

    def check(self) -> None:
        if self.measures_here:
            check_here(self.settings)
            if needs_cuda(self.settings):
                from nas_core.costs.timing import torch_device

                torch_device(self.settings)
        elif self.settings.runtime not in CARRIED:
            expected = f"one of {', '.join(CARRIED)}, where it is measured elsewhere"
            raise ConfigError("profile.profilers.latency.runtime", self.settings.runtime, expected)

    @property
    def needs_gpu(self) -> bool:
        return bool(self.settings.device == "cuda" or self.settings.runtime == CUDA_GRAPH)

    @property
    def device(self) -> str:
        from nas_core.costs.timing import device_name

        return device_name(self.settings)

    def measure(
        self, family: Family, genotypes: Sequence[Genotype], resources: Sequence[str], *, blocks: bool
    ) -> list[Cost]:
        from nas_core.costs.timing import time_family

        if not self.measures_here:
            raise ConfigError("profile.profilers.latency.where", "elsewhere", "values that `mathnas measure` brings")
        writer, space = RowWriter.of(self, family), family.space
        rows = []
        for base in base_genotypes(space):
            size = space.resolution_of(base)
            mine = [genotype for genotype in genotypes if space.resolution_of(genotype) == size]
            timings = time_family(family, base, mine, self.settings, blocks=blocks)
            if timings.fixed_part is not None:
                rows.append(writer.fixed_part(size, RESOURCE, timings.fixed_part))
            rows += [writer.block(block, size, RESOURCE, measured) for block, measured in timings.blocks.items()]
            rows += [writer.network(genotype, RESOURCE, measured) for genotype, measured in timings.networks.items()]
        return rows
