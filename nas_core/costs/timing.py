"""Times blocks and whole networks on a device.

Inference mode, evaluation mode, random weights, inputs of the real shape.
Every part is warmed up; then the parts take turns, one timed run each per
round, so that a machine that speeds up or slows down meanwhile (clock, heat)
shifts all parts alike and not those that came last. Equal blocks on equal
shapes are timed once. Garbage collection waits.

The clock is, on a GPU, CUDA events around one run at a time; on one CPU
thread, that thread's CPU time, which is the wall time of a quiet machine and
does not grow when other work takes turns on the core; on several CPU threads,
the wall time.
"""

import gc
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import ConfigError
from nas_core.costs.counting import input_side, placed_blocks
from nas_core.costs.profiler import Measured, Measurement
from nas_core.costs.settings import ProfileConfig
from nas_core.families.assemble import assemble, build_block, build_head, build_stem
from nas_core.space.genotypes import BlockId, Genotype, PlacedBlock, SearchSpace

NETWORKS_AT_ONCE = 64  # whole networks in memory that take turns
Clock = Callable[[nn.Module, torch.Tensor], float]  # milliseconds of one run
Timing = np.ndarray | Exception  # milliseconds of every repeat, or why there are none


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something to time: how to build it, and the shape C, H, W of its input."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class SpaceTimings:
    """Milliseconds per batch at one resolution; ``fixed_part`` is stem and head together, None if not asked for."""

    fixed_part: Measured | None
    blocks: dict[BlockId, Measured]
    networks: dict[Genotype, Measured]


def time_space(
    space: SearchSpace, resolution: int, genotypes: Sequence[Genotype], config: ProfileConfig, *, blocks: bool
) -> SpaceTimings:
    """Times whole networks and, with ``blocks``, stem, head and every block, all taking turns with each other.

    A block that does nothing is not timed and costs 0.

    Raises:
        ConfigError: if the device is not there.
    """
    place_of = _places(space, resolution) if blocks else {}
    distinct = list(dict.fromkeys(place for place in place_of.values() if not place[0].is_no_op))
    ends = [_stem(space, resolution), _head(space, resolution)] if blocks else []
    parts = [*ends, *(_block(*place) for place in distinct)]
    together, later = genotypes[:NETWORKS_AT_ONCE], genotypes[NETWORKS_AT_ONCE:]
    timings = time_parts([*parts, *(_network(space, genotype) for genotype in together)], config)
    networks = dict(zip(together, map(_measured, timings[len(parts) :]), strict=True))
    if later:
        networks |= time_space(space, resolution, later, config, blocks=False).networks
    timed = dict(zip(distinct, map(_measured, timings[len(ends) : len(parts)]), strict=True))
    nothing = Measurement(value=0.0)
    return SpaceTimings(
        fixed_part=_measured(_added(timings[0], timings[1])) if blocks else None,
        blocks={block: timed.get(place, nothing) for block, place in place_of.items()},
        networks=networks,
    )


def _places(space: SearchSpace, resolution: int) -> dict[BlockId, tuple[PlacedBlock, int]]:
    """Every block with its shape and the side in pixels of its input."""
    return {
        (position, choice): (placed, input_side(space, position, resolution))
        for position, blocks in enumerate(placed_blocks(space))
        for choice, placed in enumerate(blocks)
    }


def time_parts(parts: Sequence[Part], config: ProfileConfig) -> list[Timing]:
    """Milliseconds of ``config.repeats`` runs of every part, taken in turns; an Exception for a part that fails.

    Raises:
        ConfigError: if the device is not there.
    """
    device = torch_device(config)
    clock = _clock(device, config.num_threads)
    inputs: dict[tuple[int, int, int], torch.Tensor] = {}
    timings: list[Timing] = [np.zeros(config.repeats) for _ in parts]
    modules: dict[int, nn.Module] = {}

    def attempt(index: int) -> float:
        try:
            return clock(modules[index], inputs[parts[index].shape])
        except Exception as error:  # out of memory, say: this part has no latency, the others have
            timings[index] = error
            del modules[index]
            return 0.0

    with _quiet(config.num_threads), torch.inference_mode():
        for index, part in enumerate(parts):
            try:
                modules[index] = _placed_on(device, part.build().eval(), config.channels_last)
                if part.shape not in inputs:
                    x = torch.randn(config.batch_size, *part.shape)
                    inputs[part.shape] = _placed_on(device, x, config.channels_last)
            except Exception as error:
                timings[index] = error
                modules.pop(index, None)
        for _ in range(config.warmup):
            for index in list(modules):
                attempt(index)
        for repeat in range(config.repeats):
            for index in list(modules):
                ms, timing = attempt(index), timings[index]
                if not isinstance(timing, Exception):
                    timing[repeat] = ms
    return timings


def torch_device(config: ProfileConfig) -> torch.device:
    """The device the configuration asks for; raises ConfigError if it is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        advice = "torch sees no GPU here; use auto or cpu."
        raise ConfigError("profile.device", "cuda", "a device of this machine", advice)
    cuda = config.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def device_name(config: ProfileConfig) -> str:
    """Model name of the device measured; raises ConfigError if it is not there."""
    device = torch_device(config)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    """The CPU's model name as the kernel gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _clock(device: torch.device, num_threads: int) -> Clock:
    if device.type == "cuda":
        return _cuda_ms
    return _thread_ms if num_threads == 1 else _wall_ms


def _thread_ms(module: nn.Module, x: torch.Tensor) -> float:
    start = time.thread_time_ns()
    module(x)
    return (time.thread_time_ns() - start) / 1e6


def _wall_ms(module: nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter_ns()
    module(x)
    return (time.perf_counter_ns() - start) / 1e6


def _cuda_ms(module: nn.Module, x: torch.Tensor) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    module(x)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _placed_on(device: torch.device, thing: Any, channels_last: bool) -> Any:
    """The module or tensor on the device, in the memory format."""
    return thing.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _measured(timing: Timing) -> Measured:
    """The median of the repeats, and half the distance from their 10th to their 90th percentile."""
    if isinstance(timing, Exception):
        return timing
    low, median, high = np.percentile(timing, [10, 50, 90])
    return Measurement(value=float(median), spread=float(high - low) / 2, num_repeats=len(timing))


def _added(first: Timing, second: Timing) -> Timing:
    if isinstance(first, Exception):
        return first
    return second if isinstance(second, Exception) else first + second


@contextmanager
def _quiet(num_threads: int) -> Iterator[None]:
    """``num_threads`` CPU threads, no garbage collection, and the caller's random state untouched."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(num_threads)
    gc.collect()
    gc.disable()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()


def _block(placed: PlacedBlock, side: int) -> Part:
    return Part(build=lambda: build_block(placed), shape=(placed.in_channels, side, side))


def _stem(space: SearchSpace, resolution: int) -> Part:
    shape = (space.in_channels, resolution, resolution)
    return Part(build=lambda: build_stem(space.stem, space.in_channels), shape=shape)


def _head(space: SearchSpace, resolution: int) -> Part:
    width, side = space.positions[-1].out_channels, input_side(space, space.num_positions, resolution)
    return Part(build=lambda: build_head(space.head, width, space.num_classes), shape=(width, side, side))


def _network(space: SearchSpace, genotype: Genotype) -> Part:
    resolution = space.resolution_of(genotype)
    shape = (space.in_channels, resolution, resolution)
    return Part(build=lambda: assemble(space.architecture(genotype)), shape=shape)
