"""What is checked before any compute is spent: data, space, limits, store, addresses."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.base.errors import ConfigError, IncompleteTableError, SpaceError, StoreError
from nas_core.base.machine import usable_cpus
from nas_core.base.words import counted
from nas_core.costs import ProfileConfig, profiler_of
from nas_core.costs.latency import RESOURCE as LATENCY
from nas_core.families.trained_model import TrainedModel
from nas_core.prediction.links import check_link
from nas_core.prediction.settings import LEAST_NETWORKS
from nas_core.program.limits import is_called, parse_limit
from nas_core.records.store import Store
from nas_core.searchers.designs import check_base
from nas_core.space.genotypes import Genotype
from nas_core.study.brought import described, workload_of
from nas_core.study.choices import check_distance
from nas_core.study.config import ClusterConfig
from nas_core.study.contestants import REMADE, RIVALS
from nas_core.study.fingerprints import check_same_data
from nas_core.study.stages import STAGES, Stage
from nas_core.study.study import Study
from nas_core.study.sweep import limits_of
from nas_core.training.settings import FullTrainingConfig
from nas_core.workloads import build_workload
from nas_core.workloads.normalisation import known_normalisation
from nas_core.workloads.workload import metric_of
from tasks.addresses import check_addresses, names_cluster

if TYPE_CHECKING:
    from torch import nn

    from nas_core.study.analytic_config import AnalyticConfig

DRAWN = 8  # networks that stand for a family's, where none has all blocks


def preflight(study: Study, until: Stage = "report", dry_run: str = "") -> None:
    """Raise the first mistake that would otherwise be met later, in the stages up to ``until``.

    Servers are not asked: one that is away when a scheduled run begins may be back when it is needed. ``dry_run`` is
    the root of a run that is only planned: nothing is written then.

    Raises:
        NasError: with the field, path or address, what was found and what is allowed.
    """
    config = study.config
    if dry_run:
        _check_could_be_written(dry_run)
    else:
        _check_writable(study.store)
    _check_local_cluster(config.cluster)
    if trains := _trains(study, until):
        check_workers(config.train, config.cluster)
        _check_rivals(study)
    check_profilers(config.profile, study.profiler_ids)
    for text in config.select.limits:
        _check_limit(study, text)
    if config.select.sweep:
        limits_of(config.select.sweep, config.select.points)
        _check_limit(study, config.select.sweep, "sweep")
    if trains or study.scorer.needs_data:
        workload_of(config).check(config.train.train_examples if trains else None)
        if trains:
            config.train.recipe.check("train.recipe")
        _check_outputs(study)
        _check_recipes(study, trains)
    counts = (*study.space.num_choices, len(study.space.resolutions))
    check_distance(counts, config.select.top, config.select.min_distance, "select.min_distance")
    check_link(config.predict.link, study.scorer.measure.higher_is_better)  # an unknown metric is said here, too
    if trains and study.space.is_chain:
        _check_classes(study)
    if until == "report":
        _check_tracking(study.store, dry_run)
    check_scores_hold(study, keep=not dry_run)
    check_base(study.space, config.design.base)
    _check_enough(study, until)
    _check_limits(study, until)


def _check_enough(study: Study, until: Stage) -> None:
    number = study.space.num_networks
    if number < LEAST_NETWORKS and STAGES.index(until) >= STAGES.index("select"):
        where, expected = f"space {study.space.name}", f"{LEAST_NETWORKS} at least, as many as can be fitted to"
        advice = "`mathnas run ... --until score` evaluates all there are."
        raise SpaceError(where, counted(number, "network"), expected, advice)


def _check_limits(study: Study, until: Stage) -> None:
    """Where costs are known: before a finished study gets a configuration without networks."""
    if STAGES.index(until) >= STAGES.index("select"):
        with suppress(IncompleteTableError):
            study.snapshot.holding({}).check_limits()


def notes(study: Study, until: Stage = "report") -> list[str]:
    """What a person should know before a run: how networks are rated, which of the data are not used."""
    reads_data = study.scorer.needs_data or _trains(study, until)
    return [*notes_on_networks(study), *(workload_of(study.config).notes() if reads_data else ())]


def notes_on_networks(study: Study) -> list[str]:
    """How networks are rated, and what of the family is not as one might expect."""
    return [*study.scorer.notes(), *study.family.notes()]


def _trains(study: Study, until: Stage) -> bool:
    return STAGES.index(until) >= STAGES.index("train") and study.family.are_networks


def check_scores_hold(study: Study, keep: bool = True) -> None:
    """Whether the table or the images are still what the stored scores were made from; ``keep`` notes new ones.

    Raises:
        DataError: naming the file, and what it says now.
    """
    study.scorer.check(study.evaluations())
    if study.scorer.needs_data:
        check_same_data(study.scorer.workload, study.scorer_id, study.store, keep=keep)


def preflight_design(config: "AnalyticConfig", root: str) -> None:
    """Raise the first mistake of a design that would otherwise be met later, as ``preflight`` does."""
    store = Store(root)
    config.program.build_domain()
    config.program.build_limits()
    workload = build_workload(config.data)
    metric_of(workload, config.metric)
    workload.check(config.train.train_examples)
    config.train.recipe.check("train.recipe")
    check_workers(config.train, config.cluster)
    _check_design_recipe(config)
    _check_writable(store)
    _check_tracking(store)
    check_addresses()


def _check_design_recipe(config: "AnalyticConfig") -> None:
    """As far as it can be known before there is a network."""
    import tasks.worker  # noqa: F401 (knows how to fetch a teacher of MLflow's)
    from nas_core.training.recipe_check import check_recipe

    workload, train, side = build_workload(config.data), config.train, config.program.resolution
    if not workload.sample.is_image or workload.sample.dense:
        gives = "a map for each" if workload.sample.dense else "inputs that are no images"
        expected = "images with classes, labels or numbers, as designed networks give them"
        raise ConfigError("data.kind", f"{config.data.kind}, with {gives}", expected)
    check_recipe(
        train.recipe, "train.recipe", workload.with_train_examples(train.train_examples),
        workload.sample.shape_at(side, workload.sample.shape[0]), workers=train.workers, sync_norm=train.sync_norm,
    )  # fmt: skip


def preflight_serving(root: str) -> None:
    """Raise what would otherwise be met by the first run that somebody starts from the page."""
    store = Store(root)
    _check_writable(store)
    _check_tracking(store)
    check_addresses()


def _check_classes(study: Study) -> None:
    """The table of a tabular scorer says nothing of data, so nothing else compares them with the space."""
    sample = build_workload(study.config.data).sample
    have, want = (study.space.in_channels, study.space.num_classes), (sample.shape[0], sample.num_outputs)
    if have[1] < want[1] or have[0] < want[0]:
        found = f"{want[1]} classes, {want[0]} channels"
        expected = f"{have[1]} classes and {have[0]} channels at most, as space {study.space.name} has"
        raise ConfigError("data", found, expected, "Run `--until verify`, or take such data.")


def _check_recipes(study: Study, trains: bool) -> None:
    """Whether recipes serve the data, and networks of the family; those of scorers and the winner's."""
    import tasks.worker  # noqa: F401 (knows how to fetch a teacher of MLflow's)
    from nas_core.training.network import teacher_of
    from nas_core.training.recipe_check import check_recipe

    config, workload, space = study.config, workload_of(study.config), study.family.space
    shape = workload.sample.shape_at(max(space.resolutions), space.in_channels or workload.sample.shape[0])
    said: Any = getattr(workload.settings, "normalise", "data")
    if said != "data":
        known_normalisation(said, shape[0])  # raises for numbers of other channels
    own_model = teacher_of(described(study.family, _any_genotype(study))) if study.family.are_networks else None
    train, recipe = config.train, getattr(config.scorer, "recipe", None)
    if recipe is not None:
        together = train.workers if study.scorer.prepares_together else 1
        check_recipe(
            recipe, "scorer.recipe", workload, shape,
            networks=_networks(study), own_model=own_model, workers=together, sync_norm=True,
        )  # fmt: skip
    if (final := getattr(config.scorer, "final_recipe", None)) is not None:
        check_recipe(final, "scorer.final_recipe", workload, shape, networks=_networks(study), own_model=own_model)
    if trains:
        check_recipe(
            train.recipe, "train.recipe", workload.with_train_examples(train.train_examples), shape,
            networks=_networks(study), own_model=own_model, workers=train.workers, sync_norm=train.sync_norm,
        )  # fmt: skip


def _networks(study: Study) -> "Iterator[nn.Module]":
    """One network; then all blocks at once where the family can, else some that were drawn."""
    family = study.family
    if not family.are_networks:
        return
    yield family.module(_any_genotype(study))
    if (shared := family.shared(0)) is not None:
        yield shared
        return
    rng = np.random.default_rng(1)
    for _ in range(DRAWN):
        yield family.module(family.space.sample(rng))


def _any_genotype(study: Study) -> Genotype:
    return study.family.space.sample(np.random.default_rng(0))


def _check_rivals(study: Study) -> None:
    """Whether there is a trained model that those are made of which need one."""
    asked = [kind for kind in study.config.train.compare if kind in REMADE]
    if asked and study.config.space.kind != TrainedModel.name:
        others = ", ".join(kind for kind in RIVALS if kind not in REMADE)
        expected = f"{others}; {', '.join(REMADE)} are made of a trained model (space.kind: {TrainedModel.name})"
        raise ConfigError("train.compare", ", ".join(asked), expected)


def _check_outputs(study: Study) -> None:
    """Whether networks that come as they are give the outputs that the data want: one is built and run on two inputs.

    Heads of chains say what they give, but not of which size maps are.
    """
    from nas_core.families.output_check import check_outputs

    family, sample = study.family, workload_of(study.config).sample
    if not family.are_networks or (family.space.is_chain and not (sample.dense or sample.outputs)):
        return
    space, kind = family.space, study.config.data.kind
    genotype = _any_genotype(study)
    shape = sample.shape_at(space.resolution_of(genotype), space.in_channels or sample.shape[0])
    advice = "A head `conv-upsample` enlarges by its `scale`, the product of the strides before it."
    where, is_map = f"space {space.name}: outputs", sample.dense and space.is_chain
    check_outputs(family.module(genotype).eval(), sample, shape, kind, where, advice if is_map else "")


def _check_writable(store: Store) -> None:
    store.write_bytes(".writable", b"")
    store.delete(".writable")


def _check_could_be_written(root: str) -> None:
    """Whether a root on this machine can be made or written; of object storage only writing would tell."""
    if "://" in root:
        return
    place = Path(root)
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(
            root, f"{there}, which is {'no folder' if not there.is_dir() else 'read-only'}", "a folder to write in"
        )


def _check_local_cluster(config: ClusterConfig) -> None:
    """What a local Ray could never give; a cluster that the environment names is asked when it is met."""
    if not _is_this_machine(config):
        return
    advice = "Name a cluster in RAY_ADDRESS, or change `cluster:` in the study."
    for field in ("resources", "profile_resources"):
        if wanted := {name: amount for name, amount in getattr(config, field).items() if amount > 0}:
            expected = "none, as a local Ray has no resources of its own"
            raise ConfigError(f"cluster.{field}", ", ".join(map(str, wanted)), expected, advice)
    have_cpus = usable_cpus()
    for field in ("num_cpus", "training_cpus"):
        if (asked := getattr(config, field)) > have_cpus:
            raise ConfigError(f"cluster.{field}", f"{asked:g}", f"at most {have_cpus}, as this machine has", advice)
    if config.num_gpus > 0:
        import torch  # seconds, which only a study that asks for GPUs spends

        if config.num_gpus > (have := torch.cuda.device_count()):
            raise ConfigError("cluster.num_gpus", config.num_gpus, f"at most {have}, as this machine has", advice)


def check_workers(train: FullTrainingConfig, config: ClusterConfig) -> None:
    """Whether the workers that train a network together each get examples, and a local Ray has room for them.

    Raises:
        ConfigError: with the most there may be.
    """
    if train.workers == 1:
        return
    where = f"train.workers: {train.workers}"
    if train.recipe.batch_size < 2 * train.workers:
        expected = f"{2 * train.workers} at least, two images for each worker"
        raise ConfigError(f"{where}, train.recipe.batch_size", train.recipe.batch_size, expected)
    if not _is_this_machine(config):
        return
    advice = "Name a cluster in RAY_ADDRESS, or take fewer workers."
    each, have = max(config.training_cpus, config.num_cpus, 0.01), usable_cpus()
    if train.workers * each > have:
        expected = f"at most {int(have / each)}, as this machine has {have} CPUs and each takes {each:g}"
        raise ConfigError("train.workers", train.workers, expected, advice)
    if config.num_gpus > 0:
        import torch

        gpus = torch.cuda.device_count()
        if train.workers * config.num_gpus > gpus:
            expected = f"at most {int(gpus / config.num_gpus)}, as this machine has {gpus} GPUs"
            raise ConfigError("train.workers", train.workers, expected, advice)


def check_profilers(profile: ProfileConfig, resources: Iterable[str]) -> None:
    """Raises ConfigError for what this machine cannot measure; where a cluster measures, its nodes say so."""
    if not names_cluster():
        for resource in resources:
            profiler_of(resource, profile).check()


def _is_this_machine(config: ClusterConfig) -> bool:
    """Whether all there will be is what this machine has."""
    return not (names_cluster() or config.max_workers > 0 or _has_ray())


def _has_ray() -> bool:
    """Whether this process is connected to a Ray that somebody else has set up: it may have anything."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _check_tracking(store: Store, dry_run: str = "") -> None:
    from tasks.tracking import needs_server, tracking_uri  # a second to import, which a finished study is spared

    if "://" in dry_run and not dry_run.startswith("file://") and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise needs_server(dry_run)
    tracking_uri(store)


def _check_limit(study: Study, text: str, field: str = "limits") -> None:
    limit = parse_limit(text)
    resource = limit.resource
    known = [name for name in study.profiler_ids if study.family.are_networks or name != "flops"]
    if not any(is_called(name, resource) for name in known):
        expected = f"a resource of profile.resources: {', '.join(known) or 'of choices a function of yours gives one'}"
        raise ConfigError(f"select.{field}: {text!r}", resource, expected)
    limit.resolve(dict.fromkeys(known, 1.0))  # a unit that does not fit the resource
    most = limit.at_most
    if most is not None and (
        most.number <= 0 if is_called(LATENCY, resource) else most.number < 0 and most.unit == "%"
    ):
        raise ConfigError(f"select.{field}: {text!r}", str(most), "an amount above 0, as any network takes")
