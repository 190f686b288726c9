"""MLflow: one parent run per study or design, one child run per trained network. The only importer of mlflow.

Workers never talk to MLflow: the driver logs what the store holds, in few large
calls, so a tracking server that is away costs a later ``mathnas report``, not
results. Run ids are kept in the study, so logging again updates the same runs.
"""

import json
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nas_core.base.errors import ClusterError, ConfigError, DataError, without_passwords
from nas_core.base.identity import content_id
from nas_core.base.silence import silence
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype
from nas_core.study.analytic_project import DesignProject, what_is_proved
from nas_core.study.config import TrackingConfig
from nas_core.study.stages import (
    BLOCK_SCORES,
    CONFIG,
    DESIGN,
    DESIGN_CONFIG,
    FIGURES,
    REPORT,
    SELECTION,
    TRACKING,
    TRAINING,
    VERIFICATION,
)
from nas_core.study.study import Study
from nas_core.workloads import build_workload
from nas_core.workloads.metrics import Metric
from nas_core.workloads.workload import Workload
from tasks.addresses import check_address
from tasks.descriptions import (
    describe_design,
    describe_model,
    describe_study,
    input_of_model,
    measured_whole,
    tags_of_model,
)
from tasks.embedded_tracking import EMBEDDED, address, artifacts_uri, is_embedded, settle

log = logging.getLogger(__name__)

TABLE = "evaluations.json"
TEST_BATCH = 500
LONGEST_PARAM = 500  # letters
DESIGN_FILES = (DESIGN_CONFIG, DESIGN, TRAINING)
FILES = (CONFIG, SELECTION, VERIFICATION, TRAINING, BLOCK_SCORES, REPORT)
SECONDS_TO_ANSWER = "10"
DELETED = "deleted"  # what MLflow says of a run or an experiment that its page shows no more
# what MLflow takes an experiment for, and with which of its pages it opens one: else with traces of language models
KIND, KIND_WITH_RUNS = "mlflow.experimentKind", "custom_model_development"
AS_TRAINING = "workflowType=machine_learning"


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the study.

    Raises:
        ConfigError: for a study on object storage without MLFLOW_TRACKING_URI.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given:
        return given
    if not store.is_local:
        raise needs_server(store.root)
    return address(store, {"uri": EMBEDDED})


def needs_server(root: str) -> ConfigError:
    """What a study on object storage lacks without MLFLOW_TRACKING_URI."""
    return ConfigError("MLFLOW_TRACKING_URI", "nothing", f"a tracking server, since {root} holds no SQLite file")


def client(store: Store) -> Any:
    """An MLflow client whose server answered.

    Raises:
        ClusterError: if it does not.
    """
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which programs read
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", SECONDS_TO_ANSWER)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    uri = tracking_uri(store)
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    check_address("MLFLOW_TRACKING_URI")  # of a database that is away, MLflow's own client asks for two minutes
    if not given:
        settle(store)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    _forget_places()
    if not given:  # mlflow has set it: the next study of this process would take it for the user's
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # makes the embedded database where there is none
    except Exception as error:  # mlflow wraps every kind of network and database error in its own
        words = str(error).splitlines()[0][:200]
        raise ClusterError("MLFLOW_TRACKING_URI", uri, f"a tracking server that answers ({words})") from None
    if not given:
        settle(store)  # MLflow's default experiment, in a database made just now
    return client


def _forget_places() -> None:
    """MLflow remembers where a run's artifacts are by the run's id alone, which a copy of a study shares with it."""
    from mlflow.tracking._tracking_service import utils

    known = getattr(utils, "_artifact_repos_cache", None)
    if known is not None:
        known.clear()


def log_study(study: Study) -> dict[str, Any]:
    """Log what the store holds to the study's run; returns the run ids and the tracking URI.

    Trained networks get a child run each; the winner's model is registered and
    carries the alias.
    """
    runs = _StudyRuns(study)
    parent = runs.parent()
    runs.log_settings(parent)
    notes = study.sources.data
    if notes is not None:
        runs.log_data(parent, build_workload(study.config.data).label, notes.identity)
    runs.log_tables(parent)
    training = study.current("train") or {"networks": []}
    recipe = study.config.train.recipe.applied_to(study.scorer.workload).values
    for row in training["networks"]:
        known = {key: row[key] for key in ("genotype", "costs")}
        repeats = [{**each, **known, "role": f"{row['role']}, another seed"} for each in row.get("repeats", ())]
        for each in (row, *repeats):
            epochs = recipe["epochs"] + row.get("more_epochs", 0)
            runs.log_network(parent, each, study.inputs_of("train"), {**recipe, "epochs": epochs})
    runs.describe(parent, describe_study(study, runs.link(parent, REPORT)))
    runs.finish(parent)
    return runs.ids


def log_files(study: Study) -> None:
    """Attach the report, the figures and the stages' outputs to the study's run."""
    runs = _StudyRuns(study)
    runs.log_files(runs.parent(), FILES)


def log_design(project: DesignProject) -> dict[str, Any]:
    """Log the program's answer to the design's run, the trained network to a child run; register its model.

    Returns the run ids and the tracking URI.
    """
    answer, row = project.answer, project.training
    assert answer is not None
    assert row is not None
    runs = _DesignRuns(project, answer)
    parent = runs.parent()
    runs.log_settings(parent)
    workload = build_workload(project.config.data)
    runs.log_data(parent, workload.label, project.data.identity)
    recipe = project.config.train.recipe.applied_to(workload)
    runs.log_network(parent, row, project.training_inputs, recipe.values)
    runs.log_files(parent, DESIGN_FILES)
    runs.describe(parent, describe_design(project))
    runs.finish(parent)
    return runs.ids


def logged_to(store: Store) -> str:
    """Where runs are logged now, as ``tracking.json`` names it: relative to the root where it is in the study."""
    uri = tracking_uri(store)
    return without_passwords(uri) if os.environ.get("MLFLOW_TRACKING_URI") else EMBEDDED


def logged_elsewhere(store: Store, ids: Mapping[str, Any] | None) -> str:
    """That the runs are not where MLFLOW_TRACKING_URI says now, and how to have them there; "" where they are."""
    uri = logged_to(store)
    if not os.environ.get("MLFLOW_TRACKING_URI") or not ids or ids.get("uri") == uri:
        return ""
    return f"it was logged to {address(store, ids)} and not to {uri}: `mathnas run --from report` logs it there"


class _Runs:
    """The runs of one study or design, by the ids that its store keeps."""

    def __init__(
        self, store: Store, config: TrackingConfig, name: str, ids: Mapping[str, Any] | None, tags: Mapping[str, str]
    ) -> None:
        self.store, self.config, self.name, self.tags = store, config, name, tags
        self.client = client(self.store)
        self.ids = _ids_at(logged_to(self.store), ids or {})

    def finish(self, run_id: str) -> None:
        self._end(run_id, self.wall_s)
        self.ids["page"] = f"#/experiments/{self._experiment()}/runs?{AS_TRAINING}"
        self.ids["run_page"] = f"#/experiments/{self._experiment()}/runs/{run_id}?{AS_TRAINING}"
        self.save()

    @property
    def wall_s(self) -> float:
        """Seconds of the work that the run is of; none where nobody says."""
        return 0.0

    def _end(self, run_id: str, wall_s: float) -> None:
        """The run took what its work took, and not the time in which it was logged."""
        began_ms = self.client.get_run(run_id).info.start_time
        self.client.set_terminated(run_id, end_time=int(began_ms + 1000 * wall_s))

    def save(self) -> None:
        self.store.write_json(TRACKING, self.ids)

    def describe(self, run_id: str, text: str) -> None:
        """What MLflow's page shows above the run's figures."""
        self.client.set_tag(run_id, "mlflow.note.content", text)

    def link(self, run_id: str, path: str) -> str:
        """An artifact of the run on MLflow's own page."""
        return f"#/experiments/{self._experiment()}/runs/{run_id}/artifacts/{path}?{AS_TRAINING}"

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(self.config.experiment)
        if known is not None:
            if known.lifecycle_stage == DELETED:  # no other can have its name
                log.warning("the experiment %s was deleted: it is restored", known.name)
                self.client.restore_experiment(known.experiment_id)
            if KIND not in known.tags:
                self.client.set_experiment_tag(known.experiment_id, KIND, KIND_WITH_RUNS)
            return str(known.experiment_id)
        embedded = not os.environ.get("MLFLOW_TRACKING_URI")
        location = artifacts_uri(self.store) if embedded else None
        return str(
            self.client.create_experiment(
                self.config.experiment, artifact_location=location, tags={KIND: KIND_WITH_RUNS}
            )
        )

    def _run(self, key: str, name: str, tags: Mapping[str, str], wall_s: float = 0.0) -> str:
        """The run known by ``key``, made where there is none; its work ended just now, after so many seconds."""
        experiment, known = self._experiment(), self.ids["runs"].get(key)
        if known is not None:
            if self._found(known) is not None:
                return str(known)
            log.warning("run %s is gone from %s: logging to a new one", known, self.ids["uri"])
        began_ms = int(1000 * (time.time() - wall_s))
        run = self.client.create_run(experiment, began_ms, run_name=name, tags=dict(tags))
        self.ids["runs"][key] = run.info.run_id
        self.save()
        return str(run.info.run_id)

    def _settle_on(self, key: str, settings: Mapping[str, Any]) -> None:
        """Let ``key`` name a run of these settings: parameters cannot change, so runs of others stay what they were."""
        runs, wanted = self.ids["runs"], {name: str(value)[:LONGEST_PARAM] for name, value in settings.items()}
        before = [name for name in runs if name == key or name.startswith(f"{key} ")]
        fitting = next((name for name in before if self._is_of(runs[name], wanted)), None)
        if fitting == key or not before:
            return
        run = runs.pop(fitting) if fitting else None
        if key in runs:
            earlier = runs.pop(key)
            runs[f"{key} {earlier}"] = earlier
        if run is not None:
            runs[key] = run

    def _is_of(self, run_id: str, wanted: Mapping[str, str]) -> bool:
        """Whether the run's parameters are these, as far as it has them; one that is gone gives way to a new one."""
        run = self._found(run_id)
        known = run.data.params if run is not None else {}
        return all(known.get(name, value) == value for name, value in wanted.items())

    def _found(self, run_id: str) -> Any:
        """The run; None where the server has it no more, or on the way to its end."""
        run = _there(lambda: self.client.get_run(run_id))
        return run if run is not None and run.info.lifecycle_stage != DELETED else None

    def log_data(self, run_id: str, name: str, known: Mapping[str, Any]) -> None:
        """What the networks were fed, in MLflow's own terms; ``known`` is what identifies it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if self.client.get_run(run_id).inputs.dataset_inputs:
            return
        digest, source = content_id(known)[:8], json.dumps(known)
        dataset = Dataset(name=name, digest=digest, source_type="local", source=source)
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "search")])])

    def log_files(self, run_id: str, paths: Sequence[str]) -> None:
        """Attach what there is of the files, and the figures."""
        files = [path for path in (*paths, *self.store.paths(FIGURES)) if self.store.exists(path)]
        self._log_artifacts(run_id, {path: path for path in files})

    def _log_artifacts(self, run_id: str, paths: Mapping[str, str]) -> None:
        """Log files of the store (values) under their names in the run (keys), in one call."""
        with tempfile.TemporaryDirectory() as local:
            for name, path in paths.items():
                target = Path(local) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.store.read_bytes(path))
            self.client.log_artifacts(run_id, local)

    def log_network(self, parent: str, row: Mapping[str, Any], inputs: str, recipe: Mapping[str, Any]) -> None:
        """A child run of a trained network: curves, system metrics, metrics of the data, costs, model files.

        ``inputs`` is the id of what was trained how: it is logged once, but for costs that are measured anew.
        """
        tags = {
            **self.tags,
            "mlflow.parentRunId": parent,
            "mathnas.kind": row["role"],
            "mathnas.genotype": row["genotype"],
        }
        network = {name: row[name] for name in ("name", "genotype")}
        places = self.config.model_dump(include={"experiment", "registered_model"})
        trained_as = content_id({"study": inputs, **network, **places})
        run_id = self._run(trained_as, f"{row['name']} {row['genotype']}", tags, row["wall_s"])
        is_model = row["role"] == "winner" and bool(row["program_path"])
        is_registered = not is_model or self._is_registered(run_id)
        if self.client.get_run(run_id).info.status == "FINISHED" and is_registered:
            self.client.set_tag(run_id, "mlflow.parentRunId", parent)  # other settings may lead to the same training
            known = self.client.get_run(run_id).data.metrics
            self._log_batches(run_id, [(name, value, 0) for name, value in _costs(row) if known.get(name) != value])
            if row["role"] == "winner":
                self._crown(run_id, row)
            return
        self._log_batches(run_id, _curves(row))
        self._log_params(run_id, {"genotype": row["genotype"], **_flat(recipe)})
        self._log_network_files(run_id, row)
        if row["role"] == "winner":
            if row["program_path"]:
                self._register(run_id, row)
            self._crown(run_id, row)
            self.save()
        self._end(run_id, row["wall_s"])

    def _log_network_files(self, run_id: str, row: Mapping[str, Any]) -> None:
        folder = f"winner/{row['name']}"
        paths = [path for path in self.store.paths(folder) if not path.startswith(f"{folder}/checkpoint")]
        wanted = {f"network/{PurePosixPath(path).relative_to(folder)}": path for path in paths}
        self._log_artifacts(run_id, wanted)

    def _is_registered(self, run_id: str) -> bool:
        """Whether the run's model is there; what was deleted from the registry is forgotten, and registered anew."""
        models = self.ids.get("models", {})
        model = models.get(run_id)
        if model and _there(lambda: self.client.get_model_version(model["name"], model["version"])) is None:
            log.warning("version %s of %s is gone: it is registered again", model["version"], model["name"])
            del models[run_id]
        return run_id in models

    def _register(self, run_id: str, row: Mapping[str, Any]) -> None:
        """Register the winner as an exported program (no pickle)."""
        import mlflow
        import numpy as np
        import torch

        from nas_core.training.winner import load_deployed

        module, _ = load_deployed(self.store, row["name"])
        example = np.zeros((2, *module.input_shape), dtype=module.dtype)
        name = self.config.registered_model or self.name
        with mlflow.start_run(run_id=run_id), silence():
            info = mlflow.pytorch.log_model(
                module,
                name="model",
                serialization_format="pt2",
                input_example=example,
                registered_model_name=name,
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
                metadata={"genotype": row["genotype"], **self.tags},
            )
            known = {"name": name, "version": str(info.registered_model_version)}
            self.ids.setdefault("models", {})[run_id] = known
            self.save()  # before MLflow calls the run finished, at the end of this block: it is not registered again

    def _describe_model(self, name: str, version: str, row: Mapping[str, Any]) -> None:
        """The registry's page of the model says what it is, takes and gives; a program reads the same of the tags."""
        given = input_of_model(self.store.read_json(row["architecture_path"])["input"])
        text = describe_model(name, row, given).replace("@ALIAS", f"@{self.config.alias}")
        self.client.update_registered_model(name, description=text)
        self.client.update_model_version(name, version, description=text)
        for key, value in tags_of_model(row, given).items():
            self.client.set_model_version_tag(name, version, key, value)

    def _crown(self, run_id: str, row: Mapping[str, Any]) -> None:
        """Give the alias to the winner's model, if it has one; an earlier winner gets it back where it wins again."""
        model = self.ids.get("models", {}).get(run_id)
        self.ids.pop("model", None)  # an earlier winner's: this one may be no program, and so no model
        if model is None:
            return
        self.client.set_registered_model_alias(model["name"], self.config.alias, model["version"])
        self._describe_model(model["name"], model["version"], row)
        self.ids["model"] = {**model, "uri": f"models:/{model['name']}@{self.config.alias}"}

    def _log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Parameters can be set once: those that are there stay."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in values.items() if name not in known]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])

    def _log_batches(self, run_id: str, points: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in points if math.isfinite(value)]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])


class _StudyRuns(_Runs):
    """A study's run: its settings, its evaluations, its selection."""

    def __init__(self, study: Study) -> None:
        self.study = study
        ids = {"space_id": study.space.space_id, "scorer_id": study.scorer_id, "study": study.config.name}
        tags = {f"mathnas.{name}": value for name, value in ids.items()}
        super().__init__(study.store, study.config.tracking, study.config.name, study.output(TRACKING), tags)

    def parent(self) -> str:
        self._settle_on("study", self.settings)
        return self._run("study", self.name, {**self.tags, "mathnas.kind": "study"}, self.wall_s)

    @property
    def wall_s(self) -> float:
        return float(sum(record["wall_s"] for stage, record in self.study.records().items() if stage != "report"))

    def log_settings(self, run_id: str) -> None:
        """Settings as parameters, selection, choice and counts as metrics."""
        self._log_params(run_id, self.settings)
        rows = self.study.evaluations()
        numbers = {
            "evaluations": float(len(rows)),
            "evaluations_failed": float(sum(row.status == "failed" for row in rows)),
            "evaluation_seconds": sum(row.wall_s for row in rows),
        }
        selected = self.study.last_answer()
        if selected and selected["selections"]:
            best = selected["selections"][0]
            numbers |= {"selected_predicted": best["predicted"], "solve_s": selected["solve_s"]}
            numbers |= {f"selected_{name}": value for name, value in best["costs"].items()}
        if (outcome := self.study.outcome()) is not None:  # what was selected is predicted, what was chosen is rated
            numbers |= {"chosen_evaluated": outcome.chosen_evaluated} if outcome.chosen_evaluated is not None else {}
            costs = self.study.costs_of(Genotype.parse(outcome.chosen))
            numbers |= {f"chosen_{name}": value for name, value in costs.items()}
            whole = measured_whole(self.study, outcome.chosen)
            numbers |= {f"chosen_whole_{name}": value for name, value in whole.items()}
        self._log_batches(run_id, [(name, float(value), 0) for name, value in numbers.items()])

    @property
    def settings(self) -> dict[str, Any]:
        return _flat(self.study.config.model_dump(mode="json"))

    def log_tables(self, run_id: str) -> None:
        """Evaluations as a table that MLflow's page shows, whole every time."""
        columns = ("genotype", "status", "metric", "metric_name", "split", "wall_s", "device", "message")
        data = [[getattr(row, name) for name in columns] for row in self.study.evaluations()]
        self.client.log_dict(run_id, {"columns": list(columns), "data": data}, TABLE)
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": TABLE, "type": "table"}]))


class _DesignRuns(_Runs):
    """A design's run: its settings, the program's answer and how it was found. One run per program."""

    def __init__(self, project: DesignProject, answer: Mapping[str, Any]) -> None:
        self.project, self.answer = project, answer
        config = project.config
        words = {name: answer[name] for name in ("program_id", "family", "objective", "status", "bound_kind")}
        tags = {f"mathnas.{name}": str(value) for name, value in {**words, "design": config.name}.items()}
        super().__init__(project.store, config.tracking, config.name, project.output(TRACKING), tags)

    def parent(self) -> str:
        key = content_id({"program": self.answer["program_id"], "search": self.answer["search"]})
        self._settle_on(key, self.settings)
        return self._run(key, self.name, {**self.tags, "mathnas.kind": "design"}, self.wall_s)

    @property
    def wall_s(self) -> float:
        row = self.project.training
        return float(self.answer["cpu_s"]) + (float(row["wall_s"]) if row else 0.0)

    def log_settings(self, run_id: str) -> None:
        """Settings as parameters, the answer's figures as metrics (``solver_cpu_s`` in CPU seconds)."""
        self._log_params(run_id, self.settings)
        numbers = {name: self.answer[name] for name in ("flops", "params", "rho", "solved_nodes")}
        numbers |= what_is_proved(self.answer)
        self._log_batches(run_id, [(name, float(value), 0) for name, value in numbers.items()])

    @property
    def settings(self) -> dict[str, Any]:
        return _flat(self.project.config.model_dump(mode="json"))


def _curves(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """(metric, value, step): training curves by epoch, system metrics by sample, final figures at step 0."""
    points: list[tuple[str, float, int]] = []
    for step, epoch in enumerate(row["history"], start=1):
        points += [(name, float(value), step) for name, value in epoch.items() if name not in ("epoch", "step")]
    for step, sample in enumerate(row["system"]):
        points += [(f"system/{name}", float(value), step) for name, value in sample.items()]
    points += [(name, value, 0) for name, value in _costs(row)]
    points += [(f"test_{name}", float(value), 0) for name, value in row["metrics"]["test"].items()]
    points += [("training_seconds", row["wall_s"], 0), ("training_examples_per_s", row["examples_per_s"], 0)]
    return points


def _costs(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What the network costs, by the sums of its blocks and whole, and what is proved of a design."""
    found = {**row["costs"], **row.get("design", {})}
    whole = {f"whole_{name}": value for name, value in row.get("measured", {}).items()}
    return [(name, float(value)) for name, value in {**found, **whole}.items()]


def _ids_at(uri: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of the runs at ``uri``; those that are elsewhere are kept beside them, for who goes back there."""
    if known.get("uri") == uri or (uri == EMBEDDED and is_embedded(known)):
        return {**known, "uri": uri}
    elsewhere = dict(known.get("elsewhere", {}))
    mine = elsewhere.pop(uri, {"runs": {}})
    if known:
        left = EMBEDDED if is_embedded(known) else str(known.get("uri", ""))
        elsewhere[left] = {name: value for name, value in known.items() if name not in ("uri", "elsewhere")}
    return {**mine, "uri": uri, **({"elsewhere": elsewhere} if elsewhere else {})}


def _there(ask: Callable[[], Any]) -> Any:
    """What the server answers; None where it has no such thing. Any other error is no sign of that, and is raised."""
    import mlflow

    try:
        return ask()
    except mlflow.exceptions.MlflowException as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def registered_model(store: Store) -> Any:
    """The winner as its users load it: from the registry, by its alias."""
    import mlflow

    client(store)
    with silence():
        return mlflow.pytorch.load_model(store.read_json(TRACKING)["model"]["uri"])


def logged_model(uri: str) -> Any:
    """A model of the server that MLFLOW_TRACKING_URI names, such as ``models:/study@champion`` or ``runs:/ID/model``.

    A module, or an exported program, as which MLflow logs models unless told otherwise.

    Raises:
        ConfigError: without such a server.
        DataError: if it has no such model.
    """
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not server:
        raise ConfigError("MLFLOW_TRACKING_URI", "nothing", f"the tracking server that has {uri}")
    import mlflow
    import torch

    mlflow.set_tracking_uri(server)
    mlflow.set_registry_uri(server)
    try:
        with silence(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore", FutureWarning)  # of torch's own use of what it deprecates
            model = mlflow.pytorch.load_model(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            programs = [*Path(folder).rglob("model.pt2")]  # of which MLflow gives a module without the modules inside
            return torch.export.load(programs[0]) if programs else model
    except Exception as error:  # mlflow wraps every kind of network, database and file error in its own
        words = str(error).splitlines()[0][:200]
        raise DataError(uri, words, f"a model of PyTorch's that {without_passwords(server)} has") from None


def registered_metric(store: Store, workload: Workload, metric: Metric, shape: tuple[int, ...]) -> float:
    """The metric of the registered model on the test split, loaded and fed as its users do."""
    import torch

    from nas_core.training.loop import value_of
    from nas_core.workloads.examples import batches_of
    from nas_core.workloads.normalisation import Normalisation

    model, as_floats = registered_model(store), Normalisation()
    inputs, targets = workload.load(shape).load_test()
    with torch.inference_mode():
        both = zip(batches_of(inputs, TEST_BATCH), batches_of(targets, TEST_BATCH), strict=True)
        outputs = [
            workload.reduced(workload.output_scale(model(as_floats(part))), wanted)  # back to what the network gives
            for part, wanted in both
        ]
    return value_of(metric, torch.cat(outputs), targets)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
