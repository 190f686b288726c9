"""What a run would do: its whole preflight, what there is to choose from, evaluations to make, what it will take."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from flows.estimate import Amounts, Estimate, TrialError, estimated, slowest, tried
from nas_core.base.errors import StoreError, without_passwords
from nas_core.base.machine import usable_cpus
from nas_core.base.words import counted
from nas_core.costs import is_measured, is_measured_whole, profile_blocks, profiler_of
from nas_core.program.limits import is_called, parse_limit
from nas_core.records.evaluations import CostTable
from nas_core.records.resources import combine_of
from nas_core.records.store import Store
from nas_core.report.summary import Limit
from nas_core.report.text import format_amount, format_duration, format_limit
from nas_core.space.extremes import extreme_genotypes
from nas_core.space.genotypes import Genotype
from nas_core.study.brought import workload_of
from nas_core.study.config import StudyConfig
from nas_core.study.rounds import most_finalists, most_measured_whole, most_of_moves
from nas_core.study.snapshot import Snapshot
from nas_core.study.sources import Sources
from nas_core.study.stages import CONFIG, STAGES, Stage
from nas_core.study.study import Study
from tasks.requests import Request, room

EMBEDDED = {
    "RAY_ADDRESS": "a local Ray on this machine",
    "PREFECT_API_URL": "a Prefect server in this process",
    "MLFLOW_TRACKING_URI": "a SQLite file in the study",
}
MOST_NAMES = 20  # of classes, in a line
LATENCY = "latency_ms"
NOT_KNOWN = "what this scorer takes is known once it has rated a network."


def plan(config: StudyConfig, root: str, until: Stage = "report", *, measures: bool = True) -> dict[str, Any]:
    """What the stages up to ``until`` would do; nothing is written.

    What they will take is estimated from a trial, seconds long, where ``measures`` says so.

    Raises:
        NasError: what the run would end with before any compute is spent, or an impossible limit.
    """
    from flows.preflight import notes_on_networks, preflight
    from tasks.addresses import check_addresses

    check_addresses()
    with _study(config, root) as study:
        preflight(study, until, dry_run=root)
        known = _priced(study)
        known.check_limits()
        design = known.design
        missing = study.missing(design.genotypes)
        verifies = STAGES.index(until) >= STAGES.index("verify")
        trains = STAGES.index(until) >= STAGES.index("train") and study.family.are_networks
        others = study.space.num_networks - len(design.genotypes)
        verification = min(config.verify.evaluations, others) if verifies else 0
        found, why_not = None, NOT_KNOWN
        if measures:
            try:
                found = _estimate(study, known, until, len(missing), verification, trains)
            except TrialError as error:  # the plan stands without it
                why_not = str(error)
        return {
            "study": config.name,
            "root": root,
            "networks_in_space": study.space.num_networks,
            "base": str(design.base),
            "evaluations": len(design.genotypes),
            "stored": len(design.genotypes) - len(missing),
            "missing": len(missing),
            "verification_at_most": verification,
            "verification_of_moves": min(_of_moves(study), others - verification) if verifies else 0,
            "data": _data(study) if trains or study.scorer.needs_data else {},
            "notes": notes_on_networks(study),
            "resources": _attainable(known) if study.family.are_networks else {},
            "limits": _limits(config, known),
            "cluster": _cluster(),
            "estimate_s": None if found is None else round(found.seconds, 1),
            **({"no_estimate": why_not} if found is None else _rounded(found)),
            "is_measured": measures,
        }


def priced(config: StudyConfig, root: str) -> Snapshot:
    """What the study knows of what networks cost before it runs, without limits on what only a run will measure."""
    with _study(config, root) as study:
        return _priced(study)


@contextmanager
def _study(config: StudyConfig, root: str) -> Iterator[Study]:
    """The study as it is stored; where it is not, one in a folder that is gone afterwards."""
    if (store := _stored(root)) is not None:
        yield Study(config, store, Sources.of(config, store.root))  # as the run will find it
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Study(config, Store(folder))


def _stored(root: str) -> Store | None:
    """The store of a study; None where there is none yet."""
    try:
        store = Store(root, create=False)
        return store if store.exists(CONFIG) else None
    except StoreError:
        return None


def _of_moves(study: Study) -> int:
    """Networks that verification adds where limits on what is measured whole are moved as often as they may be."""
    profile, limits = study.config.profile, study.config.select.limits
    whole = [name for name in study.profiler_ids if is_measured_whole(name, profile)]
    moves = any(_is_of(text, whole) and parse_limit(text).at_most is not None for text in limits)
    return most_of_moves(study.config.verify) if moves else 0


def _priced(study: Study) -> Snapshot:
    """What the study knows, with the counts of its blocks; without resources that only a run will measure."""
    counted = [resource for resource in study.profiler_ids if not is_measured(resource)]
    rows = profile_blocks(study.family, study.config.profile, counted)
    known = {row.resource for row in study.snapshot.costs if is_measured(row.resource)}
    resources = {name: mine for name, mine in study.profiler_ids.items() if name in counted or name in known}
    limits = [text for text in study.config.select.limits if _is_of(text, resources)]
    select = study.config.select.model_copy(update={"limits": limits})
    return Snapshot(
        config=study.config.model_copy(update={"select": select}),
        space=study.space,
        profiler_ids=resources,
        evaluations=study.snapshot.evaluations,
        costs=(*(row for row in study.snapshot.costs if is_measured(row.resource)), *rows),
        root=study.store.root,
    )


def _is_of(limit: str, resources: Iterable[str]) -> bool:
    name = parse_limit(limit).resource
    return any(is_called(known, name) for known in resources)


def _data(study: Study) -> dict[str, str]:
    """What the workload says of itself, and its classes."""
    workload = workload_of(study.config)
    rows, space = dict(workload.describe()), study.space
    if held := workload.held(workload.sample.shape_at(max(space.resolutions), space.in_channels)):
        rows["held"] = held
    names = list(getattr(workload, "class_names", ()))
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        rows["classes"] = f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}"
    train, validation = workload.num_examples()
    rows["scoring"] = f"{train:,} training and {validation:,} validation examples"
    return rows


def _attainable(known: Snapshot) -> dict[str, dict[str, float]]:
    """Least and most of each priced resource that the rules allow, and the base network's."""
    base = known.costs_of(known.base)
    found = {}
    for resource in known.profiler_ids:
        totals = [total for tables in known.cost_tables.values() for total in _range(known, tables[resource])]
        found[resource] = {"least": min(totals), "most": max(totals), "base": base[resource]}
    return found


def _range(known: Snapshot, table: CostTable) -> list[float]:
    if combine_of(table.resource) == "max":  # of its blocks, rules not applied
        return [max(table.fixed, *map(pick, table.block)) for pick in (min, max)]
    space = known.space
    if len(space.resolutions) > 1:  # one table at a time
        return [table.fixed + sum(map(pick, table.block)) for pick in (min, max)]
    return [table.total(genotype) for genotype in extreme_genotypes(space, [table])]


def _limits(config: StudyConfig, known: Snapshot) -> dict[str, str]:
    """What each limit amounts to, or that it depends on what the run measures; a sweep's range."""
    select = config.select
    trained = f", {min(select.recover, select.points)} of them trained" if known.are_networks else ""
    swept = {select.sweep: f"{select.points} limits{trained}"}
    is_known = known.config.select.limits
    unknown = "known once the run has measured it"
    found = {text: _limit(known, text) if text in is_known else unknown for text in select.limits}
    return found | (swept if select.sweep else {})


def _limit(known: Snapshot, text: str) -> str:
    """What a limit amounts to, and whether it changes anything."""
    budgets, costs = known.budgets((text,)), known.costs_of(known.base)
    amounts = (Limit(resource=each.resource, at_most=each.at_most, at_least=each.at_least) for each in budgets)
    kept = all(each.is_kept_by(costs[each.resource]) for each in budgets)
    return " and ".join(map(format_limit, amounts)) + (", which the base keeps" if kept else "")


def _cluster() -> dict[str, str]:
    """Where the work is done: addresses that the environment names, else what is embedded."""
    return {name: without_passwords(os.environ.get(name, "")) or embedded for name, embedded in EMBEDDED.items()}


def _estimate(study: Study, known: Snapshot, until: Stage, scored: int, verified: int, trains: bool) -> Estimate | None:
    """What the stages will take; None where that is known once networks were rated."""
    rows = [row.wall_s for row in study.evaluations() if row.status == "ok"]
    if study.scorer.work() is None and not rows:
        return None
    totals = {genotype: known.flops.total(genotype) for genotype in known.design.genotypes}
    mean = sum(totals.values()) / len(totals)
    genotype = min(totals, key=lambda each: abs(totals[each] - mean))
    amounts = _amounts(
        study, until, scored, verified, trains, size=mean / totals[genotype] if totals[genotype] else 1.0
    )
    runs = study.family.are_networks and (study.scorer.runs_networks or trains or amounts.timed > 0)
    trials = tried(study.config, genotype, amounts.workers, runs=runs, trains=trains, times=amounts.timed > 0)
    return estimated(study, slowest(trials), amounts, sum(rows) / len(rows) if rows else None)


def _amounts(study: Study, until: Stage, scored: int, verified: int, trains: bool, size: float) -> Amounts:
    """What is to be done; a cluster is taken for this machine alone."""
    config, cpus = study.config, usable_cpus()
    stages = [stage for stage in study.stages(until) if not study.status_of(stage).is_over]
    cluster = config.cluster
    workers = _here(Request(num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus))
    trainings, share, processes = _num_trainings(config), 0.0, config.train.workers
    share = cluster.training_cpus or max(cluster.num_cpus, cpus // (processes if processes > 1 else trainings), 1)
    at_a_time = max(1, _here(Request(num_cpus=share, num_gpus=cluster.num_gpus)) // processes)
    verify, is_slow = config.verify, study.scorer.duration == "minutes"
    expected = min(verified, verify.per_round * (verify.patience + 1)) if "verify" in stages else 0
    return Amounts(
        scored=scored,
        verified=expected,
        rounds=-(-expected // verify.per_round),
        finalists=most_finalists(config) if "verify" in stages else 0,
        rated_per_load=getattr(config.scorer, "batch", 1) if is_slow else max(1, scored + expected),
        workers=workers,
        trainings=trainings if trains and "train" in stages else 0,
        trained_at_a_time=at_a_time,
        training_cpus=max(1, int(share)),
        first_cpus=cpus,
        timed=_num_timed(study) if "profile" in stages else 0,
        timed_whole=_num_timed_whole(config) if "verify" in stages and _measures_latency(config) else 0,
        size=size,
        stages=tuple(stages),
    )


def _here(request: Request) -> int:
    """How many such workers this machine holds at a time, one at least; without a GPU it is taken to have one."""
    gpus = 1
    if request.num_gpus:
        import torch

        gpus = max(1, torch.cuda.device_count())
    return max(1, room({"CPU": usable_cpus(), "GPU": gpus}, request.as_demand()))


def _num_trainings(config: StudyConfig) -> int:
    """Of the winner and what it is compared with, from every seed, and of a sweep's points."""
    points = min(config.select.recover, config.select.points) if config.select.sweep else 0
    beside = config.train.compare_base + config.train.compare_random + len(config.train.compare)
    return config.train.seeds * (1 + beside) + points


def _measures_latency(config: StudyConfig) -> bool:
    return LATENCY in config.profile.resources and profiler_of(LATENCY, config.profile).measures_here


def _num_timed(study: Study) -> int:
    """Whole networks whose latency is measured, and blocks as parts of such."""
    config, space = study.config, study.space
    if not _measures_latency(config) or not study.family.are_networks:
        return 0
    from nas_core.costs.conditions import is_of_files
    from nas_core.costs.timing import drawn_networks

    settings = config.profile.profilers["latency"]
    if study.family.switched() is not None:
        blocks = len(drawn_networks(study.family, Genotype((0,) * space.num_positions), settings))
    elif is_of_files(settings.runtime):  # each block is a file of its own
        blocks = sum(space.num_choices) // 2
    else:
        blocks = -(-sum(space.num_choices) // space.num_positions)
    return blocks * len(space.resolutions) + config.profile.networks


def _num_timed_whole(config: StudyConfig) -> int:
    points = config.select.points if config.select.sweep else 0
    contestants = 2 + config.train.compare_random + len(config.train.compare) if config.train.compare else 0
    return most_measured_whole(config) + 1 + points + contestants  # the base among them


def _rounded(found: Estimate) -> dict[str, Any]:
    known = asdict(found)
    return {
        **known,
        "stages_s": {stage: round(seconds, 1) for stage, seconds in found.stages_s.items()},
        **{name: round(known[name], 1) for name in ("around_s", "disk_mb", "memory_mb")},
    }


def plan_in_words(found: dict[str, Any]) -> str:
    """The plan for a person."""
    attainable = {
        name: f"{format_amount(name, row['least'])} to {format_amount(name, row['most'])}, "
        f"base {format_amount(name, row['base'])}"
        for name, row in found["resources"].items()
    }
    lines = [
        f"Study {found['study']} in {found['root']}: {found['networks_in_space']:,} networks, base {found['base']}.",
        f"Evaluations: {found['evaluations']} in the design, {found['stored']} stored already, "
        f"{found['missing']} to make; verification adds {found['verification_at_most']} at most{_more(found)}.",
        *found["notes"],
        *_estimate_in_words(found),
        *_section("Data", found["data"]),
        *_section("Attainable", attainable),
        *_section("Limits", found["limits"]),
        *_section("Where", found["cluster"]),
    ]
    return "\n".join(lines)


def _more(found: Mapping[str, Any]) -> str:
    more = found["verification_of_moves"]
    return f", and {more} more where limits on what is measured have to be moved" if more else ""


def _estimate_in_words(found: Mapping[str, Any]) -> list[str]:
    if not found["is_measured"]:
        return []
    if found["estimate_s"] is None:
        return [f"No estimate: {found['no_estimate']}"]
    parts = {**found["stages_s"], "starting and ending": found["around_s"]}
    stages = ", ".join(f"{stage} {format_duration(seconds)}" for stage, seconds in parts.items() if seconds >= 1)
    workers = counted(found["workers"], "worker")
    return [
        f"Estimate, from a few steps that were run on this machine, within a factor of two: "
        f"{format_duration(found['estimate_s'])} ({stages});",
        f"{_size(found['memory_mb'])} of memory for {workers}, {_size(found['disk_mb'])} of disk.",
    ]


def _size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"


def _section(title: str, rows: Mapping[str, str]) -> list[str]:
    return [f"{title}:", *(f"  {what}: {value}" for what, value in rows.items())] if rows else []
