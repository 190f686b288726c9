"""Times blocks and whole networks on a device.

Inference mode, evaluation mode, random weights, inputs of the real shape.
Every part is warmed up; then the parts take turns, one timed run each per
round, so that a machine that speeds up or slows down meanwhile (clock, heat)
shifts all parts alike and not those that came last. A whole network runs once
untimed before each timed run, which brings back into the caches what others
displaced: where it is used it runs again and again, too. A block does not, as
in its network other blocks run before it. What counts is the mean of the faster
half of the runs, as other work only ever makes some slower. Equal blocks on
equal shapes are timed once. Garbage collection waits. Memory that a run frees
stays with the process: got back from the kernel page by page, large
activations took two thirds of a run, or next to nothing, as they happened to lie.

A whole network is timed as it is handed over: the preparation of its inputs is
in it. Of a small network that is some hundredths of its time, and not the same
share of a smaller one.

Where ``runtime`` is not torch itself, every network is a file or a program of
its own (``runtimes``), and what is timed are whole calls of it. Runs of small
files are shared out among sessions, of which the fastest counts: where its
memory happens to lie makes one slower than another, and what else a machine
does may last for seconds.

The clock is, on a GPU, CUDA events around one run at a time; on one CPU
thread, that thread's CPU time, which is the wall time of a quiet machine and
does not grow when other work takes turns on the core; on several CPU threads,
the wall time.
"""

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from nas_core.base.allocator import keep_freed_memory
from nas_core.base.errors import ConfigError
from nas_core.base.machine import cpu_name
from nas_core.costs.conditions import CUDA_GRAPH, check_here, is_of_files, on_cuda
from nas_core.costs.measure_files import in_sessions, undisturbed
from nas_core.costs.parts import all_parts, fixed_parts
from nas_core.costs.profiler import Measured, Measurement
from nas_core.costs.runtimes import Run, exported, run_of, run_of_file, settled
from nas_core.families.family import Family, Part, Shape, Switched
from nas_core.families.model import rebuild
from nas_core.space.genotypes import Genotype
from nas_core.space.rules import BlockId

NETWORKS_AT_ONCE = 64  # whole networks in memory that take turns
NETWORKS_PER_EFFECT = 3.0  # whole networks timed for each difference between blocks
FILES_PER_EFFECT = 2.0  # of those that are files, or programs, of their own: each has to be made first
RIDGE = 1e-3  # of a fit whose columns are shares of a network's time: it only settles what is not told apart
LONG_MS = 20.0  # of a run; files that take longer are opened once
AS_PREPARED = 0.5, 0.25  # mean and deviation of what is prepared: any but 0 and 1, which a runtime leaves out
FILES_AT_ONCE = 16  # sessions and compiled programs, which hold more than their weights
Clock = Callable[[Callable[..., Any], Sequence[Any]], float]  # milliseconds of one run
Item = TypeVar("Item")
Timing = np.ndarray | Exception  # milliseconds of every repeat, or why there are none


@dataclass(frozen=True, kw_only=True)
class FamilyTimings:
    """Milliseconds per batch at one resolution; ``fixed_part`` is what every network has, None if not asked for."""

    fixed_part: Measured | None
    blocks: dict[BlockId, Measured]
    networks: dict[Genotype, Measured]


def time_family(
    family: Family, base: Genotype, genotypes: Sequence[Genotype], config: Any, *, blocks: bool
) -> FamilyTimings:
    """Times whole networks and, with ``blocks``, what they share and every block, all taking turns with each other.

    Blocks are measured in the shapes that they have in ``base``. A block that
    does nothing is not timed and costs 0. Where one network can become any of
    the family's, blocks are timed where they stand (``time_in_place``).

    Raises:
        ConfigError: if the device is not there.
    """
    switched = family.switched()
    if switched is not None:
        return time_in_place(family, switched, base, genotypes, config, blocks=blocks)
    parts_of = all_parts(family, base) if blocks else {}
    shared = [*_preparation(family, base), *fixed_parts(family, base)] if blocks else []
    distinct = _distinct([*shared, *(part for parts in parts_of.values() for part in parts)])
    together, later = genotypes[:NETWORKS_AT_ONCE], genotypes[NETWORKS_AT_ONCE:]
    timings = time_parts([*distinct, *(network_part(family, genotype) for genotype in together)], config)
    networks = dict(zip(together, map(_measured, timings[len(distinct) :]), strict=True))
    if later:
        networks |= time_family(family, base, later, config, blocks=False).networks
    timed = dict(zip((part.key for part in distinct), timings, strict=False))
    return FamilyTimings(
        fixed_part=_total(shared, timed) if blocks else None,
        blocks={block: _total(parts, timed) for block, parts in parts_of.items()},
        networks=networks,
    )


def time_in_place(
    family: Family, network: Switched, base: Genotype, genotypes: Sequence[Genotype], config: Any, *, blocks: bool
) -> FamilyTimings:
    """Times whole networks only, all taking turns; what blocks cost is fitted to their times by least squares.

    The networks are the base and random ones in which every block stands
    several times. One swap at a time would do, too, but the base's error would
    count once per position where swaps are added up. Of a position the cheapest
    block costs 0, the fixed part is what is left.
    """
    drawn = drawn_networks(family, base, config) if blocks else []
    distinct = list(dict.fromkeys((base, *drawn, *genotypes)))
    timings = dict(zip(distinct, _time_switched(family, network, distinct, config), strict=True))
    networks = {genotype: _measured(timings[genotype]) for genotype in genotypes}
    if not blocks:
        return FamilyTimings(fixed_part=None, blocks={}, networks=networks)
    fixed, costs = fitted_blocks(family, {each: _measured(timings[each]) for each in (base, *drawn)})
    return FamilyTimings(fixed_part=fixed, blocks=costs, networks=networks)


def drawn_networks(family: Family, base: Genotype, config: Any) -> list[Genotype]:
    """Random networks, every block of a position about as often as the others; rules are not asked."""
    per_effect = NETWORKS_PER_EFFECT if config.runtime == "eager" else FILES_PER_EFFECT
    counts, rng = family.space.num_choices, np.random.default_rng(0)
    size = round(per_effect * (1 + sum(count - 1 for count in counts)))
    columns = [rng.permutation(np.resize(np.arange(count), size)) for count in counts]
    return list(dict.fromkeys(Genotype(tuple(map(int, row)), base.resolution) for row in zip(*columns, strict=True)))


def fitted_blocks(family: Family, networks: Mapping[Genotype, Measured]) -> tuple[Measured, dict[BlockId, Measured]]:
    """What every network has, and what each block costs beyond the cheapest of its position, by whole networks."""
    ids = [(position, choice) for position, count in enumerate(family.space.num_choices) for choice in range(count)]
    good = {genotype: each.value for genotype, each in networks.items() if not isinstance(each, Exception)}
    failed = next((each for each in networks.values() if isinstance(each, Exception)), None)
    if not good:
        assert failed is not None, "some networks were measured"
        return failed, dict.fromkeys(ids, failed)
    timed = {(position, choice) for genotype in good for position, choice in enumerate(genotype.choices)}
    ms_N = np.array(list(good.values()))
    index = {block: column for column, block in enumerate(ids)}
    used_NB = np.zeros((len(good), len(ids)))
    for row, genotype in enumerate(good):
        used_NB[row, [index[block] for block in enumerate(genotype.choices)]] = 1.0
    scaled_NB, ones_N = used_NB / ms_N[:, None], np.ones(len(good))  # relative errors count alike
    cost_B = np.linalg.lstsq(np.vstack([scaled_NB, RIDGE * np.eye(len(ids))]), np.r_[ones_N, np.zeros(len(ids))])[0]
    errors_N = ms_N - used_NB @ cost_B
    spread = float(np.percentile(np.abs(errors_N), 80))
    least = [min(cost_B[index[p, c]] for c in range(n)) for p, n in enumerate(family.space.num_choices)]
    costs: dict[BlockId, Measured] = {}
    for (position, choice), column in index.items():
        value = float(cost_B[column] - least[position])
        known = Measurement(value=value, spread=spread, num_repeats=len(good))
        costs[position, choice] = known if (position, choice) in timed else failed or known
    return Measurement(value=float(sum(least)), spread=spread, num_repeats=len(good)), costs


def _time_switched(family: Family, network: Switched, genotypes: Sequence[Genotype], config: Any) -> list[Timing]:
    """The genotypes' networks in turns; where each is a file of its own, some at a time, the first always with them."""
    device, part = torch_device(config), network_part(family, genotypes[0])
    placed = _placed_on(device, handed_over(network, part.shapes[0], part.dtype), config.channels_last)
    with _quiet(config.num_threads), torch.no_grad():
        inputs = [_placed_on(device, _example(config.batch_size, part.shapes[0], part.dtype), config.channels_last)]
        if config.runtime == "eager":
            runs: list[Run | Exception] = [
                settled(Run(call=placed, inputs=inputs, before=partial(network.choose, genotype)))
                for genotype in genotypes
            ]
            return in_turns(runs, config, device)
    return _some_at_a_time(
        lambda genotype: _switched_run(family, network, placed, genotype, inputs, config), genotypes, config, device
    )


def time_networks(networks: Sequence[Part], config: Any) -> list[Measured]:
    """Milliseconds per batch of whole networks, in turns, the first always with them (``network_part`` makes parts).

    Raises:
        ConfigError: if the device is not there.
    """
    device = torch_device(config)
    inputs_of = _examples(networks, config)
    if is_of_files(config.runtime):  # which are made once, however often they are opened
        with _quiet(config.num_threads), torch.no_grad():
            files = [(_file_of(part, inputs_of(part)), inputs_of(part)) for part in networks]
        return list(map(_measured, _some_at_a_time(partial(_opened, config), files, config, device)))
    timings = _some_at_a_time(
        lambda part: _built_run(part, inputs_of(part), config, whole=True), networks, config, device
    )
    return list(map(_measured, timings))


def time_again(networks: Sequence[Part], config: Any, times: int) -> list[list[Measured]]:
    """As ``time_networks``, of what torch runs, so many times: it is built, and compiled, once."""
    runs, device = _built_runs(networks, config, lambda _: True), torch_device(config)
    return [list(map(_measured, in_turns(runs, config, device))) for _ in range(times)]


def _file_of(part: Part, inputs: list[torch.Tensor]) -> bytes | Exception:
    try:
        return exported(part.build().eval(), inputs, any_batch=True)
    except Exception as error:  # this network has no latency, the others have
        return error


def _opened(config: Any, file: tuple[bytes | Exception, list[torch.Tensor]]) -> Run | Exception:
    data, inputs = file
    if isinstance(data, Exception):
        return data
    try:
        return settled(run_of_file(data, inputs, config))
    except Exception as error:
        return error


def _some_at_a_time(
    run_of_one: Callable[[Item], Run | Exception], items: Sequence[Item], config: Any, device: torch.device
) -> list[Timing]:
    """What each item runs, timed in turns; the first is among all that are timed together."""
    first, *others = items
    starts = range(0, max(1, len(others)), FILES_AT_ONCE)
    builds = [partial(_each, run_of_one, (first, *others[start : start + FILES_AT_ONCE])) for start in starts]
    whole: list[Timing] = []
    for mine in _in_sessions(builds, config, device):
        whole = whole or mine[:1]
        # as if the first had taken what it took among the first ones: a machine that drifts slows all alike
        whole += [_at_the_pace_of(timing, mine[0], whole[0]) for timing in mine[1:]]
    return whole


def _each(run_of_one: Callable[[Item], Run | Exception], items: Sequence[Item]) -> list[Run | Exception]:
    return [run_of_one(item) for item in items]


def _switched_run(
    family: Family, network: Switched, placed: Any, genotype: Genotype, inputs: list[torch.Tensor], config: Any
) -> Run | Exception:
    """The genotype's network, which is in what is ``placed``, as a file, or a program, of its own."""
    key = (family.space.space_id, genotype)
    try:
        network.choose(genotype)
        return settled(run_of(placed, inputs, config, key, any_batch=True))
    except Exception as error:  # this network has no latency, the others have
        return error


def _distinct(parts: Sequence[Part]) -> list[Part]:
    """One part of each key, without those that do nothing."""
    return list({part.key: part for part in parts if not part.is_no_op}.values())


def _total(parts: Sequence[Part], timed: Mapping[Hashable, Timing]) -> Measured:
    """The parts' times, repeat by repeat, added up."""
    timings = [timed[part.key] for part in parts if not part.is_no_op]
    return _measured(reduce(_added, timings)) if timings else Measurement(value=0.0)


def time_parts(parts: Sequence[Part], config: Any) -> list[Timing]:
    """Milliseconds of ``config.repeats`` runs of every part, taken in turns; an Exception for a part that fails.

    Raises:
        ConfigError: if the device is not there.
    """
    runs = _built_runs(parts, config, lambda part: isinstance(part.key, Genotype))
    return in_turns(runs, config, torch_device(config))


def _built_runs(parts: Sequence[Part], config: Any, is_whole: Callable[[Part], bool]) -> list[Run | Exception]:
    inputs_of = _examples(parts, config)
    with _quiet(config.num_threads), torch.no_grad():
        return [_built_run(part, inputs_of(part), config, whole=is_whole(part)) for part in parts]


def _examples(parts: Sequence[Part], config: Any) -> Callable[[Part], list[torch.Tensor]]:
    """What each of the parts is called with, on the device: one tensor for all of one shape and type."""
    device = torch_device(config)
    with _quiet(config.num_threads), torch.no_grad():
        examples = {
            (part.rows, shape, part.dtype): _placed_on(
                device, _example(config.batch_size * part.rows, shape, part.dtype), config.channels_last
            )
            for part in parts
            for shape in part.shapes
        }
    return lambda part: [examples[part.rows, shape, part.dtype] for shape in part.shapes]


def _built_run(part: Part, inputs: list[torch.Tensor], config: Any, *, whole: bool) -> Run | Exception:
    try:
        module = _placed_on(torch_device(config), part.build().eval(), config.channels_last)
        run = run_of(module, inputs, config, any_batch=whole)
        return settled(run) if whole else run
    except Exception as error:  # out of memory, say: this part has no latency, the others have
        return error


def time_files(files: Sequence[bytes], shape: Sequence[int], dtype: str, config: Any) -> list[Measurement]:
    """Milliseconds per batch of ONNX files that take one input of this shape and type, in turns.

    Raises:
        ConfigError: if the runtime is not installed, or more threads are asked for than there are.
        Exception: whatever a file fails with.
    """
    with _quiet(config.num_threads):
        inputs = [_example(config.batch_size, shape, dtype)]
    opened = [(data, inputs) for data in files]
    timings = _some_at_a_time(partial(_opened, config), opened, config, torch.device("cpu"))
    measured = list(map(_measured, timings))
    for each in measured:
        if isinstance(each, Exception):
            raise each
    return [each for each in measured if isinstance(each, Measurement)]


def _in_sessions(
    builds: Sequence[Callable[[], list[Run | Exception]]], config: Any, device: torch.device
) -> list[list[Timing]]:
    """``in_turns`` of what each of ``builds`` makes; of small files some at a time (``in_sessions`` says how)."""

    def timed(build: Callable[[], list[Run | Exception]], repeats: int) -> list[Timing]:
        with _quiet(config.num_threads), torch.no_grad():
            runs = build()
        return in_turns(runs, config.model_copy(update={"repeats": repeats}), device)

    if is_of_files(config.runtime):
        with _quiet(config.num_threads), torch.no_grad():
            is_small = not _takes_long(builds[0]()[0])
        if is_small:
            return in_sessions([partial(timed, build) for build in builds], config.repeats)
    return [timed(build, config.repeats) for build in builds]


def _takes_long(run: Run | Exception) -> bool:
    """Whether a run of the network lasts as long as what disturbs it."""
    if isinstance(run, Exception):
        return False
    run.before()
    return _wall_ms(run.call, run.inputs) > LONG_MS


def in_turns(runs: list[Run | Exception], config: Any, device: torch.device) -> list[Timing]:
    """Milliseconds of ``config.repeats`` rounds of what runs, after those that warm up; what fails leaves the list."""
    keep_freed_memory()
    clock = _clock(device, config)
    timings: list[Timing] = [run if isinstance(run, Exception) else np.zeros(config.repeats) for run in runs]
    with _quiet(config.num_threads), torch.inference_mode():
        for repeat in range(-config.warmup, config.repeats):
            for index, run in enumerate(runs):
                timing = timings[index]
                if isinstance(run, Exception) or isinstance(timing, Exception):
                    continue
                try:
                    run.before()
                    ms = clock(run.call, run.inputs)
                except Exception as error:
                    timings[index] = runs[index] = error
                    continue
                if repeat >= 0:
                    timing[repeat] = ms
    return timings


def _example(batch_size: int, shape: Sequence[int], dtype: str) -> torch.Tensor:
    """Random numbers; whole ones (tokens, say) are 0 or 1, which every vocabulary has."""
    kind = getattr(torch, dtype)
    if _are_floats(dtype):
        return torch.randn(batch_size, *shape, dtype=kind)
    return torch.randint(0, 2, (batch_size, *shape), dtype=kind)


def torch_device(config: Any) -> torch.device:
    """Where the configuration wants modules; raises ConfigError if that, or the runtime, is not there."""
    check_here(config)
    if is_of_files(config.runtime):
        return torch.device("cpu")  # from which they are exported
    if config.device == "cuda" and not torch.cuda.is_available():
        advice = "torch sees no GPU here; use auto or cpu."
        raise ConfigError("profile.profilers.latency.device", "cuda", "a device of this machine", advice)
    if config.runtime == CUDA_GRAPH and not torch.cuda.is_available():
        advice = "torch sees no GPU here; use eager, compile or a runtime of ONNX files."
        raise ConfigError("profile.profilers.latency.runtime", CUDA_GRAPH, "a runtime of this machine", advice)
    cuda = config.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def device_name(config: Any) -> str:
    """The device's model name, and the runtime where that is not torch itself; raises as ``torch_device``."""
    device = torch_device(config)
    runtime = "" if config.runtime == "eager" else f", {config.runtime}"
    if device.type == "cuda" or (on_cuda(config) and torch.cuda.is_available()):
        return torch.cuda.get_device_name() + runtime
    return ("cuda" if on_cuda(config) else cpu_name()) + runtime


def _clock(device: torch.device, config: Any) -> Clock:
    if device.type == "cuda":
        return _cuda_ms
    in_this_thread = config.num_threads == 1 and config.runtime != "openvino" and not on_cuda(config)
    return _thread_ms if in_this_thread else _wall_ms


def _thread_ms(call: Callable[..., Any], inputs: Sequence[Any]) -> float:
    start = time.thread_time_ns()
    call(*inputs)
    return (time.thread_time_ns() - start) / 1e6


def _wall_ms(call: Callable[..., Any], inputs: Sequence[Any]) -> float:
    start = time.perf_counter_ns()
    call(*inputs)
    return (time.perf_counter_ns() - start) / 1e6


def _cuda_ms(call: Callable[..., Any], inputs: Sequence[Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()  # else this run's launches would hide behind the kernels of the one before
    start.record()
    call(*inputs)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _placed_on(device: torch.device, thing: Any, channels_last: bool) -> Any:
    """The module or tensor on the device, in the memory format."""
    if isinstance(thing, torch.Tensor) and thing.ndim != 4:
        return thing.to(device)
    return thing.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _measured(timing: Timing) -> Measured:
    """What the repeats take undisturbed, and half the distance from their 10th to their 90th percentile."""
    if isinstance(timing, Exception):
        return timing
    low, high = np.percentile(timing, [10, 90])
    return Measurement(value=undisturbed(timing), spread=float(high - low) / 2, num_repeats=len(timing))


def _at_the_pace_of(timing: Timing, own: Timing, reference: Timing) -> Timing:
    """The timing as if what took ``own`` beside it had taken ``reference``; as it is where either failed."""
    if isinstance(timing, Exception) or isinstance(own, Exception) or isinstance(reference, Exception):
        return timing
    return timing * undisturbed(reference) / undisturbed(own)


def _added(first: Timing, second: Timing) -> Timing:
    if isinstance(first, Exception):
        return first
    return second if isinstance(second, Exception) else first + second


@contextmanager
def _quiet(num_threads: int) -> Iterator[None]:
    """``num_threads`` CPU threads, no garbage collection, and the caller's random state untouched."""
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(num_threads)
    if collecting:
        gc.collect(1)  # of all objects it takes most of a second, many times as long as small files are timed
        gc.disable()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()


def network_part(family: Family, genotype: Genotype) -> Part:
    """The genotype's whole network as one part."""
    shape = list(family.sample.shape)
    if len(shape) == 3:  # an image, whose size the genotype or the space decides
        shape[1:] = [family.space.resolution_of(genotype)] * 2
        shape[0] = family.space.in_channels or shape[0]
    return whole_part(genotype, tuple(shape), family.sample.dtype, lambda: family.module(genotype))


def whole_part(key: Hashable, shape: Shape, dtype: str, build: Callable[[], nn.Module]) -> Part:
    """A whole network, which is built without the preparation of its inputs, as one part with it."""
    return Part(position=None, key=key, shapes=(shape,), dtype=dtype, build=lambda: handed_over(build(), shape, dtype))


def handed_over(network: Any, shape: Shape, dtype: str) -> nn.Module:
    """The network behind the preparation of its inputs, of which whole numbers (tokens, say) have none."""
    if not _are_floats(dtype):
        whole: nn.Module = network
        return whole
    mean, std = ([value] * shape[0] for value in AS_PREPARED)
    return rebuild.Prepared(network, mean, std, 1 + len(shape))


def _preparation(family: Family, base: Genotype) -> list[Part]:
    """What is done to a network's inputs before its first block, if anything is."""
    whole = network_part(family, base)
    if not _are_floats(whole.dtype):
        return []
    return [whole_part("preparation", whole.shapes[0], whole.dtype, nn.Identity)]


def _are_floats(dtype: str) -> bool:
    kind: torch.dtype = getattr(torch, dtype)
    return kind.is_floating_point
