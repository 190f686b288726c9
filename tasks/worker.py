"""What runs in a worker: a study as it travels there, and the jobs made of it.

Every new worker process imports this module, so it imports neither Prefect nor
MLflow, and torch only inside the jobs that need it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import SpaceError
from nas_core.base.fetching import FETCHERS
from nas_core.base.machine import own_folder
from nas_core.base.plugins import Ticket, import_carried, imported
from nas_core.records.evaluations import Evaluation
from nas_core.records.store import Store, shared_store
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig
from nas_core.study.contestants import Candidate, Remark, Training
from nas_core.study.study import Study

if TYPE_CHECKING:
    import torch

    from nas_core.scoring.scorer import Scorer
    from nas_core.study.analytic_config import AnalyticConfig
    from nas_core.training.network import Description
    from nas_core.training.winner import Start


def _logged_model(uri: str) -> Any:
    from tasks.tracking import logged_model  # MLflow: only where a recipe names a model of its

    return logged_model(uri)


FETCHERS.update(models=_logged_model, runs=_logged_model)


@dataclass(frozen=True, kw_only=True)
class StudyJob:
    """A study as it travels to workers: small, and with nothing but texts in it.

    ``folder`` is the driver's working folder, in which a user's code may look for its files.
    """

    config_json: str
    root: str
    space_id: str
    folder: str
    plugins: tuple[Ticket, ...] = ()

    def study(self) -> Study:
        """The study, in a worker; its plug-ins are imported first, from the store where this node has no other source.

        The worker goes to the driver's working folder, where its machine has it.

        Raises:
            PluginError: if a plug-in does not import here.
            SpaceError: if the family has read another space here than the driver did: its networks have other numbers.
        """
        with suppress(OSError):  # it was started elsewhere, so that the folder is not on its path
            os.chdir(self.folder)
        store = shared_store(self.root)
        import_tickets(self.plugins, store)
        study = Study(StudyConfig.model_validate_json(self.config_json), store)
        found = study.family.space.space_id
        if found != self.space_id:
            advice = "A file that the family reads was changed during the run; run the study again."
            raise SpaceError(f"space {study.space.name}", found, f"{self.space_id}, as the run began", advice)
        return study


def study_job(study: Study) -> StudyJob:
    """The study as a job; its plug-ins' source is put into the store."""
    plugins = carried(study.config.plugins, study.store)
    return StudyJob(
        config_json=study.config.model_dump_json(),
        root=study.store.root,
        space_id=study.space.space_id,
        folder=os.getcwd(),
        plugins=plugins,
    )


def carried(names: Sequence[str], store: Store) -> tuple[Ticket, ...]:
    """Tickets of the plug-ins, whose source is in the store from now on."""
    tickets = []
    for name in names:
        ticket = Ticket.of(imported[name])
        if not store.exists(ticket.path):
            store.write_bytes(ticket.path, imported[name].packed())
        tickets.append(ticket)
    return tuple(tickets)


def import_tickets(tickets: Sequence[Ticket], store: Store) -> None:
    """Import plug-ins in a worker."""
    for ticket in tickets:
        import_carried(ticket, lambda path=ticket.path: store.read_bytes(path), own_folder("plugins"))  # type: ignore[misc]


STORE_EVERY_S = 2.0  # a worker that is killed loses no more


class Evaluator:
    """A worker's scorer, built once, or its ``final`` one; it writes what it evaluates."""

    def __init__(self, job: StudyJob, final: bool = False) -> None:
        study = job.study()
        scorer = study.scorer.final if final else study.scorer
        assert scorer is not None, "finalists are rated again where there is something to rate them by"
        self.store, self.scorer = study.store, scorer

    def run(self, batch: list[str]) -> int:
        """Evaluate and store the networks, those that are rated one by one as they come; returns how many failed."""
        networks = [Genotype.parse(text) for text in batch]
        parts = [[network] for network in networks] if self.scorer.one_by_one else [networks]
        pending, num_failed, stored_at = list[Evaluation](), 0, time.monotonic()
        for part in parts:
            rows = self.scorer.evaluate(part)
            num_failed += sum(row.status == "failed" for row in rows[: len(part)])
            pending += rows
            if part is parts[-1] or time.monotonic() - stored_at >= STORE_EVERY_S:
                self.store.add_evaluations(pending)
                pending, stored_at = [], time.monotonic()
        return num_failed


def prepare_job(job: StudyJob, pieces: Sequence[str], report: Any) -> None:
    """What the scorer needs once, such as the training of shared weights, or pieces of it; resumes where cut off."""
    scorer = job.study().scorer
    if pieces:
        scorer.prepare_pieces(pieces, report)
    else:
        scorer.prepare(report)


def profile_job(job: StudyJob, resources: Sequence[str], genotypes: Sequence[str], report: Any) -> int:
    """Measure blocks (and the networks named) in a worker, write the rows; returns how many failed."""
    from nas_core.costs import is_measured, profile

    study = job.study()
    num_failed = 0
    for done, resource in enumerate(resources):
        report(done, len(resources), resource)
        # blocks and whole networks take turns, so that a machine that drifts does not look non-additive
        whole = [Genotype.parse(text) for text in genotypes] if is_measured(resource) else []
        rows = profile(study.family, whole, study.config.profile, [resource])
        # whole, since times measured on different days do not belong together
        study.store.replace_costs([replace(row, profiler_id=study.profiler_ids[resource]) for row in rows])
        num_failed += sum(row.status == "failed" for row in rows)
    report(len(resources), len(resources), "")
    return num_failed


def time_job(job: StudyJob, resources: Sequence[str], genotypes: Sequence[str], report: Any) -> list[dict[str, Any]]:
    """Measure whole networks in a worker, all taking turns; returns their rows."""
    from nas_core.costs import profile

    study = job.study()
    rows = []
    for done, resource in enumerate(resources):
        report(done, len(resources), resource)
        networks = [Genotype.parse(text) for text in genotypes]
        rows += profile(study.family, networks, study.config.profile, [resource], blocks=False)
    report(len(resources), len(resources), "")
    return [asdict(row) for row in rows]


def rivals_job(job: StudyJob, candidates: Sequence[Candidate], report: Any) -> dict[str, Any]:
    """Make in a worker what the study is compared with beside networks of its space; measure all contestants whole.

    Returns the candidates, all of them with costs (``costs``, and ``measured`` whole), and remarks.
    """
    from nas_core.study.rivals import Rivals

    rivals = Rivals(job.study())
    found = list(rivals.found(report))
    everyone = [*candidates, *(each for each in found if isinstance(each, Candidate))]
    report(rivals.num_steps - 1, rivals.num_steps, "all are measured whole")
    measured = rivals.whole(everyone)
    report(rivals.num_steps, rivals.num_steps, "")
    return {
        "candidates": everyone,
        "remarks": [each for each in found if isinstance(each, Remark)],
        "costs": {each.name: rivals.costs_of(each) for each in everyone},
        "measured": measured,
    }


def train_job(job: StudyJob, training: Training, report: Any) -> dict[str, Any]:
    """Train one network in a worker, where it is ``new``; its files are under ``winner/<name>/`` in the store.

    Of a training that ``diverged`` only the message comes back: the others go on.
    """
    from nas_core.study.brought import trained_metric
    from nas_core.training.loop import TrainingDiverged
    from nas_core.training.winner import stored_result, training_id
    from nas_core.workloads import build_workload

    study = job.study()
    config = _longer(study.config, training.more_epochs)
    candidate, name, made = training.candidate, training.name, training.candidate.remade
    architecture, start = _rival(study, made) if made else _of_space(study, Genotype.parse(candidate.genotype))
    workload, metric = build_workload(config.data), trained_metric(config)
    starts_from = start.known_as if start else ""
    run_id = training_id(architecture, config.train, workload, training.seed, metric.name, starts_from)
    if (known := stored_result(study.store, name, run_id, metric)) is not None:
        report(1, 1, f"{name} is trained already")
        return {**known.as_dict(), "system": [], "new": False}
    try:
        return {**train_and_watch(architecture, config, training.seed, study.store, name, report, start), "new": True}
    except TrainingDiverged as error:
        return {"diverged": str(error), "new": True}


def _longer(config: StudyConfig, more_epochs: float) -> StudyConfig:
    """The configuration with so many epochs of full training more."""
    recipe = config.train.recipe
    recipe = recipe.model_copy(update={"epochs": recipe.epochs + more_epochs})
    return config.model_copy(update={"train": config.train.model_copy(update={"recipe": recipe})})


def _of_space(study: Study, genotype: Genotype) -> "tuple[Description, Start | None]":
    from nas_core.study.brought import described

    start = started(study.scorer, genotype) if study.scorer.starts_from else None
    return described(study.family, genotype), start


def _rival(study: Study, path: str) -> "tuple[Description, Start | None]":
    """A network that was made of the model, with the weights that it was left with, where it has any."""
    from nas_core.study.rivals import Rivals
    from nas_core.training.checkpoint import unpack
    from nas_core.training.winner import Start

    weights = f"{path}.safetensors"
    start = Start(known_as=path, weights=lambda: unpack(study.store.read_bytes(weights))[0])
    return Rivals(study).remade(path), start if study.store.exists(weights) else None


def started(scorer: "Scorer", genotype: Genotype) -> "Start":
    """What the network's training begins with, got when it is needed."""
    from nas_core.training.winner import Start

    def weights() -> "Mapping[str, torch.Tensor]":
        found = scorer.start(genotype)
        assert found is not None, "a scorer that says where trainings start from gives the weights"
        return found

    return Start(known_as=scorer.starts_from, weights=weights)


def train_design_job(config_json: str, root: str, report: Any) -> dict[str, Any]:
    """Train the designed network in a worker; its files are under ``winner/winner/`` in the store."""
    from nas_core.study.analytic_config import AnalyticConfig
    from nas_core.study.analytic_project import WINNER, DesignProject

    project = DesignProject(AnalyticConfig.model_validate_json(config_json), shared_store(root))
    return train_and_watch(project.network, project.config, project.config.seed, project.store, WINNER, report)


def train_and_watch(
    architecture: "Description",
    config: "StudyConfig | AnalyticConfig",
    seed: int,
    store: Store,
    name: str,
    report: Any,
    start: "Start | None" = None,
) -> dict[str, Any]:
    """What ``train_network`` returns, and the worker's use of processors and memory meanwhile."""
    from nas_core.study.brought import trained_metric
    from nas_core.training.winner import train_network
    from nas_core.workloads import build_workload
    from tasks.system_metrics import SystemMetrics

    with SystemMetrics() as metrics:
        trained = train_network(
            architecture,
            config.train,
            build_workload(config.data),
            metric=trained_metric(config).name,
            seed=seed,
            store=store,
            name=name,
            start=start,
            on_progress=report,
        )
    return {**trained.as_dict(), "system": metrics.samples}
