"""One contract per protocol, run on small examples: a family of few networks, digits, a temporary store.

A class whose settings have no defaults carries ``example``, settings that it
can be tested with. A function is called for the examples as far as it takes
them, since it may be of other positions and blocks; ``own_functions`` calls it for
a study's. torch is imported by the contracts that need it.
"""

import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_core.base.errors import SpaceError
from nas_core.base.registry import Origin, Registered, Registry
from nas_core.costs.function_resource import FunctionProfiler
from nas_core.costs.profiler import PROFILERS
from nas_core.families.blocks import BLOCKS, HEADS, IMAGES, ROWS, STEMS
from nas_core.families.family import FAMILIES, Family
from nas_core.families.model.alternatives import ALTERNATIVES
from nas_core.prediction.settings import PredictConfig
from nas_core.program import Budget
from nas_core.records.evaluations import FIXED_PART, WHOLE_NETWORK, CostTable, EvaluationTable
from nas_core.records.store import Store
from nas_core.scoring.function_scorer import FunctionScorer
from nas_core.scoring.scorer import SCORERS, Setting
from nas_core.searchers.searcher import SEARCHERS, Knowledge
from nas_core.space.genotypes import Genotype, PlacedBlock, SearchSpace
from nas_core.workloads.examples import batches_of, in_memory
from nas_core.workloads.workload import WORKLOADS, Workload

log = logging.getLogger(__name__)

BATCH = 3
SHAPES = ((8, 8, 1), (8, 16, 1), (8, 8, 2), (8, 16, 2))  # channels in, channels out, stride
SIDES = (8, 7)
ALIKE = 1e-3  # sums of other sizes are rounded otherwise


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A promise that a class does not keep: what was asked, what happened."""

    kind: str
    name: str
    promise: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.promise}: {self.found}"


Finding = tuple[str, str]  # promise, what was found
Contract = Callable[[Any], Iterator[Finding]]


def registries() -> dict[str, Registry[Any]]:
    """What can be brought, by the word for it."""
    known = (FAMILIES, BLOCKS, STEMS, HEADS, ALTERNATIVES, WORKLOADS, SCORERS, PROFILERS, SEARCHERS)
    return {registry.kind: registry for registry in known}


def check_all(origin: Origin | None = None) -> dict[tuple[str, str], list[Failure]]:
    """Every registered class held against its contract, or those of one origin: (kind, name) -> what fails."""
    found = {}
    for kind, registry in registries().items():
        for name in registry:
            if origin is None or registry.origin(name).source == origin.source:
                found[kind, name] = check(kind, name)
    return found


def is_function(thing: type[Registered]) -> bool:
    """Whether it was made of a function, which says nothing of the networks that it is for."""
    return issubclass(thing, FunctionScorer | FunctionProfiler)


def check(kind: str, name: str) -> list[Failure]:
    """What the registered class does not keep of its protocol's promises; nothing where it keeps all."""
    thing = registries()[kind][name]
    if is_function(thing) and any(field.is_required() for field in thing.Settings.model_fields.values()):
        return []  # only a study has them
    try:
        findings = list(_general(thing)) or list(CONTRACTS[kind](thing))
    except Exception as error:  # whatever a user's class raises is a finding
        findings = [("runs on a small example", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
    return [Failure(kind=kind, name=name, promise=promise, found=found) for promise, found in findings]


def example_settings(thing: type[Registered]) -> Any:
    """The class's settings with its ``example`` filled in."""
    return thing.Settings.model_validate(dict(thing.example))


def _general(thing: type[Registered]) -> Iterator[Finding]:
    schema = thing.Settings.model_json_schema()
    required = [name for name in schema.get("required", ()) if name not in thing.example]
    if required:
        yield "settings without a default are in `example`", f"no {', '.join(required)}"
        return
    settings = example_settings(thing)
    again = thing.Settings.model_validate_json(settings.model_dump_json())
    if again != settings:
        yield "settings survive JSON", "other settings"


def _family(thing: type[Family]) -> Iterator[Finding]:
    family, twin = (thing(example_settings(thing)) for _ in range(2))
    space = family.space
    if twin.space.space_id != space.space_id:
        yield "the same settings give the same space", f"{space.space_id} and {twin.space.space_id}"
    if SearchSpace.from_dict(json.loads(json.dumps(space.as_dict()))) != space:
        yield "the space survives JSON", "another space"
    rng = np.random.default_rng(0)
    for genotype in {space.sample(rng) for _ in range(2)}:
        parts = list(family.parts(genotype))
        strange = {part.position for part in parts} - {None, *range(space.num_positions)}
        if strange:
            yield "a part is of a position of the space, or of None", str(strange)
        if parts:
            yield from _builds_a_network(family, twin, genotype)


def _builds_a_network(family: Family, twin: Family, genotype: Genotype) -> Iterator[Finding]:
    import torch

    space = family.space
    shape = _shape_of(family, genotype)
    inputs = torch.zeros(BATCH, *shape, dtype=getattr(torch, family.sample.dtype))
    network = family.module(genotype, torch.Generator().manual_seed(0))
    outputs = network.eval()(inputs)
    if outputs.shape[0] != BATCH:
        yield "a network's outputs have the batch's axis first", str(tuple(outputs.shape))
    same = twin.module(genotype, torch.Generator().manual_seed(0))
    if not _equal_weights(network, same):
        yield "weights are a function of the generator", "others, twice from the same seed"
    for part in family.parts(genotype):
        rows, kind = BATCH * part.rows, getattr(torch, part.dtype)
        part.build().eval()(*(torch.zeros(rows, *each, dtype=kind) for each in part.shapes))
    shared = family.shared(0)
    if shared is not None:
        path = shared.eval()(inputs, genotype=space.check(genotype))
        if path.shape != outputs.shape:
            yield "a path through the shared network gives what its network gives", str(tuple(path.shape))


def _shape_of(family: Family, genotype: Genotype) -> tuple[int, ...]:
    return family.sample.shape_at(family.space.resolution_of(genotype), family.space.in_channels)


def _equal_weights(one: Any, other: Any) -> bool:
    import torch

    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def _block(thing: Any) -> Iterator[Finding]:
    import torch

    kind = thing(example_settings(thing))
    stands = 0
    for in_channels, out_channels, stride in SHAPES:
        place = PlacedBlock(block=_spec(thing), in_channels=in_channels, out_channels=out_channels, stride=stride)
        if kind.misfit(place):
            continue
        stands += 1
        for sides in _sides(kind):
            inputs = torch.randn(BATCH, in_channels, *sides)
            before = inputs.clone()
            block = kind.build(in_channels, out_channels, stride).eval()
            outputs = block(inputs)
            wanted = (BATCH, out_channels, *(-(-side // stride) for side in sides))
            where = f"{in_channels} to {out_channels} channels, stride {stride}, sides {sides}"
            if tuple(outputs.shape) != wanted:
                yield f"a side of H becomes ceil(H / stride) ({where})", f"{tuple(outputs.shape)}, not {wanted}"
            if not torch.equal(inputs, before):
                yield "a block leaves its input alone", f"changed ({where})"
            elif not outputs.isfinite().all():
                yield "outputs are finite numbers", f"NaN or infinite ({where})"
            elif not torch.equal(block(inputs), outputs):
                yield "in eval mode the same input gives the same outputs", f"others, the second time ({where})"
            elif not torch.allclose(block(inputs[:1]), outputs[:1], rtol=ALIKE, atol=ALIKE):
                yield "in eval mode an example's outputs are its own", f"others, beside other examples ({where})"
    if not stands:
        yield "a block fits somewhere", f"`misfit` refuses all of {SHAPES}"


def _sides(kind: Any) -> list[tuple[int, ...]]:
    """Sides of what the kind is given: of images, or none of rows."""
    return [(side, side) for side in SIDES] * (IMAGES in kind.takes) + [()] * (ROWS in kind.takes)


def _spec(thing: Any) -> Any:
    from nas_core.space.genotypes import BlockSpec

    return BlockSpec.of(thing.name, **thing.example)


def _stem(thing: Any) -> Iterator[Finding]:
    import torch

    stem = thing(example_settings(thing))
    outputs = stem.build(3).eval()(torch.randn(BATCH, 3, *((32, 32) if IMAGES in stem.takes else ())))
    if outputs.shape[1] != stem.settings.out_channels:
        yield "a stem gives `out_channels`", str(tuple(outputs.shape))


def _head(thing: Any) -> Iterator[Finding]:
    import torch

    sides = (4, 4) if IMAGES in thing.takes else ()
    outputs = thing(example_settings(thing)).build(8, 5).eval()(torch.randn(BATCH, 8, *sides))
    if outputs.shape[:2] != (BATCH, 5) or outputs.ndim != (4 if thing.dense else 2):
        yield "a head gives one number per output, or a map where it is dense", f"{tuple(outputs.shape)}"


def _alternative(thing: Any) -> Iterator[Finding]:
    """Held against a convolutional block and a transformer's, by the settings of its example."""
    import copy

    import torch

    from nas_core.families.model.assembling import WRITTEN, drafted
    from nas_core.families.model.draft import Original
    from nas_core.families.model.rebuild import changed, fill
    from nas_core.testing.example_model import example_blocks

    stands, refused = 0, dict[str, list[str]]()
    for name, block, call in example_blocks():
        before = copy.deepcopy(block.state_dict())
        try:
            draft = drafted(Original(block=block, call=call, samples=call), thing(example_settings(thing)))
        except SpaceError as error:
            refused.setdefault(str(error.found), []).append(name)
            if error.expected == WRITTEN:
                stands += 1  # it would, but for that
                yield WRITTEN, f"{error.found} ({name})"
            continue
        stands += 1
        if any(not torch.equal(value, before[key]) for key, value in block.state_dict().items()):
            yield "the model's own block is left alone", f"changed ({name})"
        again = fill(changed(copy.deepcopy(block), json.loads(json.dumps(draft.changes))), draft.block.state_dict())
        with torch.no_grad():
            if not torch.equal(call.run(again), call.run(draft.block)):
                yield "its changes, as JSON, and its weights build the block again", f"other outputs ({name})"
    if not stands:
        why = "; ".join(f"{found} ({', '.join(names)})" for found, names in refused.items())
        yield "an alternative stands somewhere", f"refused for all blocks tried: {why}"


def _small_workload(thing: type[Workload]) -> Workload:
    """The example's, with no more validation examples than a small set has."""
    settings = example_settings(thing)
    if "validation_examples" not in thing.Settings.model_fields or "validation_examples" in thing.example:
        return thing(settings)
    num_examples = sum(thing(settings.model_copy(update={"validation_examples": 1})).num_examples())
    few = min(settings.validation_examples, max(1, num_examples // 5))
    return thing(settings.model_copy(update={"validation_examples": few}))


def _workload(thing: type[Workload]) -> Iterator[Finding]:
    import torch

    workload = _small_workload(thing)
    json.dumps(workload.identity)
    for name, metric in workload.metrics.items():
        if metric.name != name:
            yield "metrics are filed under their names", f"{metric.name} under {name}"
    if not workload.metrics:
        yield "a workload has a metric", "none"
    workload.check()
    splits = workload.load()
    inputs, targets = splits.train
    prepared = splits.prepare(next(batches_of(inputs, BATCH)))
    if tuple(prepared.shape[1:]) != workload.sample.shape:
        yield "prepared inputs have the sample's shape", f"{tuple(prepared.shape[1:])}, not {workload.sample.shape}"
    outputs = torch.randn(BATCH, *workload.sample.outputs_for(workload.sample.shape), requires_grad=True)
    targets = in_memory(targets[:BATCH])
    loss = workload.loss(outputs, targets)
    if loss.ndim or not math.isfinite(float(loss.detach())):
        yield "the loss is one finite number", str(loss)
    for name, metric in workload.metrics.items():
        value = metric.of(outputs.detach(), targets)
        if not math.isfinite(float(value)):
            yield f"the metric {name} is a finite number", str(value)
        again = metric.of(workload.reduced(outputs.detach(), targets), targets)
        if not math.isclose(value, again, rel_tol=1e-5, abs_tol=1e-6):
            yield f"{name} of reduced outputs is that of outputs", f"{again}, not {value}"
    for split in ("validation", "test"):
        pair = splits.validation if split == "validation" else splits.load_test()
        if len(pair[0]) != len(pair[1]) or not len(pair[0]):
            yield f"{split} has as many inputs as targets, one at least", f"{len(pair[0])} and {len(pair[1])}"


def _scorer(thing: Any) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        scorer, twin = (_small_scorer(thing, folder) for _ in range(2))
        if scorer.scorer_id != twin.scorer_id:
            yield "the same settings give the same id", f"{scorer.scorer_id} and {twin.scorer_id}"
        scorer.check()
        scorer.prepare(lambda *_: None)
        if not scorer.prepared:
            yield "after `prepare` it is prepared", "it is not"
        genotypes = list(scorer.family.space.genotypes())[:2]
        rated = scorer.evaluate(genotypes)
        rows = rated[: len(genotypes)]
        if [row.genotype for row in rows] != list(map(str, genotypes)):
            yield "one row per genotype, in order", str([row.genotype for row in rows])
        failed = [row for row in rows if row.status == "failed"]
        if failed and is_function(thing):
            log.info("scorer %s does not rate %s: %s", thing.name, scorer.family.settings, failed[0].message)
        else:
            yield from (("small networks can be rated", row.message) for row in failed)
            named = set(thing.directions) if issubclass(thing, FunctionScorer) else set()
            if not failed and (missing := sorted(named - {row.metric_name for row in rated})):
                yield "every metric that it names is given", f"no {', '.join(missing)}"
        again = [row.metric for row in twin.evaluate(genotypes)[: len(genotypes)]]
        if again != [row.metric for row in rows]:
            yield "the same network has the same metric", f"{[row.metric for row in rows]} and {again}"


def _small_scorer(thing: Any, folder: str) -> Any:
    workload = WORKLOADS["digits"](
        WORKLOADS["digits"].Settings.model_validate({"train_examples": 64, "validation_examples": 32})
    )
    family = FAMILIES[thing.for_family or ("tiny" if thing.needs_torch else "choices")]
    made = family(example_settings(family), workload.sample if family.are_networks else None)
    return thing(example_settings(thing), Setting(family=made, workload=workload, store=Store(folder), seed=0))


def _profiler(thing: Any) -> Iterator[Finding]:
    family = FAMILIES["tiny"](FAMILIES["tiny"].Settings())
    profiler, space = thing(example_settings(thing)), family.space
    json.dumps(profiler.identity)
    names = [resource.name for resource in profiler.resources]
    rows = profiler.measure(family, [Genotype((1,) * space.num_positions)], names, blocks=True)
    failed = [row for row in rows if row.status == "failed"]
    if failed and is_function(thing):
        log.info("resource %s has no value for blocks of space tiny: %s", names[0], failed[0].message)
        return
    wanted = {(p, c) for p, count in enumerate(space.num_choices) for c in range(count)} | {(FIXED_PART, 0)}
    for name in names:
        mine = [row for row in rows if row.resource == name]
        found = {(row.position, row.choice) for row in mine if row.position != WHOLE_NETWORK}
        if found != wanted:
            yield f"{name} has a row for every block and the fixed part", f"missing {sorted(wanted - found)[:3]}"
        for row in mine:
            if row.status == "failed":
                yield f"{name} can be had of small blocks", row.message
    if profiler.whole_networks and not any(row.position == WHOLE_NETWORK for row in rows):
        yield "whole networks have rows", "none (or say `whole_networks = False`)"


def _searcher(thing: Any) -> Iterator[Finding]:
    space = FAMILIES["tiny"](FAMILIES["tiny"].Settings()).space
    known = _knowledge(space)
    searcher = thing(example_settings(thing))
    found = searcher.next(known, 3)
    if len(found) > 3:
        yield "at most as many networks as asked for", str(len(found))
    if len(set(found)) < len(found) or set(found) & set(known.tried):
        yield "networks that were not tried, each once", str(list(map(str, found)))
    table = known.costs[0]
    for genotype in found:
        space.check(genotype)
        if known.budgets[0].at_most is not None and table.total(genotype) > known.budgets[0].at_most:
            yield "networks within the limits", f"{genotype} costs {table.total(genotype):g}"
    if [*map(str, thing(example_settings(thing)).next(known, 3))] != [*map(str, found)]:
        yield "the same knowledge gives the same networks", "others"


def _knowledge(space: SearchSpace) -> Knowledge:
    tried = list(space.genotypes())[::3]
    block = tuple(tuple(float(choice) for choice in range(count)) for count in space.num_choices)
    costs = CostTable(resource="flops", device="any", resolution=space.resolutions[0], fixed=1.0, block=block)
    table = EvaluationTable.from_metrics({genotype: float(sum(genotype.choices)) for genotype in tried})
    return Knowledge(
        space=space,
        base=tried[0],
        table=table,
        tried=tuple(tried),
        costs=(costs,),
        budgets=(Budget(resource="flops", at_most=5.0),),
        flops=costs,
        predict=PredictConfig(),
        seed=0,
        round=0,
    )


CONTRACTS: dict[str, Contract] = {
    "family": _family,
    "block kind": _block,
    "stem kind": _stem,
    "head kind": _head,
    "alternative": _alternative,
    "workload": _workload,
    "scorer": _scorer,
    "profiler": _profiler,
    "searcher": _searcher,
}
