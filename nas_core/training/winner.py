"""The full training of one network: resumable, tested once, left in the store ready to use.

``winner/<name>/`` holds ``weights.safetensors``, ``architecture.json``,
``program.pt2``, in ``source/`` the file that makes a user's model, and, written
last, ``result.json``: a training whose result is there is not repeated.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas_core.base.errors import NasError, StoreError
from nas_core.base.identity import content_id
from nas_core.families.model import rebuild
from nas_core.families.model.source import source_files
from nas_core.records.store import Store, json_bytes
from nas_core.training.checkpoint import Checkpoint, pack, unpack
from nas_core.training.export import Deployed, deployed, deployed_for, exported_bytes
from nas_core.training.group import Group, current
from nas_core.training.loop import (
    EVAL_BATCH,
    Pair,
    TrainingResult,
    device_name,
    measure_all,
    outputs_of,
    resolve_device,
    train,
    value_of,
)
from nas_core.training.network import Description, build_network, description_from_dict, teacher_of
from nas_core.training.optimizers import Monitor
from nas_core.training.settings import TRAINING_VERSION, FullTrainingConfig
from nas_core.workloads.examples import batches_of
from nas_core.workloads.images.decoding import Fitting
from nas_core.workloads.metrics import Metric
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.targets import spread, table
from nas_core.workloads.workload import Splits, Workload, metric_of

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int, str], None]
MOST_SHOWN = 12  # test examples that a report shows
TRAIN_AGAIN = (
    "`mathnas run` with `--from train` trains it again; of a design or a shrunk model, delete the file and give its "
    "command again."
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights that a training begins with: how to get them, and the id of what they are."""

    known_as: str
    weights: Callable[[], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network's results and where its files are (paths in the study's store).

    ``genotype`` is the label of a network that was designed and not chosen from
    a space. ``metrics`` holds every metric of the workload by split
    (``validation``, ``test``) and name; ``metric_name`` and
    ``higher_is_better`` are of the one that the study compares networks by.
    ``details`` are the workload's of the test split, such as a confusion matrix.
    ``history`` has one row per epoch (epoch, step, lr, loss, and each metric as
    ``validation_<name>``); ``wall_s`` is seconds of training, those before an
    interruption included, ``examples_per_s`` of its steps alone. ``sha256``
    has the hash of every file that was written, by its path.
    """

    name: str
    genotype: str
    seed: int
    metrics: dict[str, dict[str, float]]
    details: dict[str, Any]
    metric_name: str
    higher_is_better: bool
    num_train_examples: int
    num_validation_examples: int
    num_test_examples: int
    history: tuple[dict[str, float], ...]
    wall_s: float
    steps: int
    parts: int
    examples_per_s: float
    device: str
    output_names: tuple[str, ...]
    weights_path: str
    architecture_path: str
    program_path: str  # "" where torch.export cannot follow the network
    sha256: dict[str, str] = field(default_factory=dict)  # empty in what earlier versions wrote

    @property
    def test_metric(self) -> float:
        """The study's own metric on the test split."""
        return self.metrics["test"][self.metric_name]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrainedNetwork":
        lists = {"history": tuple(data["history"]), "output_names": tuple(data["output_names"])}
        return cls(**{**data, **lists})


def train_network(
    architecture: Description,
    train_config: FullTrainingConfig,
    workload: Workload,
    *,
    metric: str = "",
    seed: int,
    device: str = "auto",
    store: Store,
    name: str,
    start: "Start | None" = None,
    on_progress: OnProgress | None = None,
) -> TrainedNetwork:
    """Train the architecture with the full recipe and store it under ``winner/<name>/``.

    Returns at once if that very training is stored; goes on from a checkpoint
    if it was interrupted. ``metric`` names the one the network is compared by
    (empty: the workload's first); all of them are measured. ``start`` gives the
    weights to begin with (None: fresh ones). Processes that train together all
    call this alike; the first of them stores the network.

    Raises:
        DataError: if data are missing.
        TrainingDiverged: if the loss or the outputs are no finite numbers.
    """
    folder, place = f"winner/{name}", resolve_device(device)
    own, group = metric_of(workload, metric), current()
    run_id = training_id(architecture, train_config, workload, seed, own.name, start.known_as if start else "")
    if (stored := stored_result(store, name, run_id, own)) is not None:
        return stored
    workload = workload.with_train_examples(train_config.train_examples)
    shape = workload.sample.shape_at(architecture.resolution, architecture.in_channels)
    splits = workload.load(shape)
    network = build_network(architecture, seed)
    if start is not None:
        network.load_state_dict(start.weights())
    checkpoint = Checkpoint(
        store=store,
        path=f"{folder}/checkpoint.safetensors",
        run_id=run_id,
        every_s=train_config.checkpoint_every_s,
    )

    def validate(trained: nn.Module) -> dict[str, float]:
        given = workload.metrics, splits.validation, splits.prepare
        values = measure_all(trained, *given, device=place, workload=workload, group=group)
        return {f"validation_{key}": value for key, value in values.items()}

    result = train(
        network,
        train_config.recipe,
        splits,
        workload,
        seed=seed,
        device=place,
        checkpoint=checkpoint,
        on_step=None if on_progress is None else lambda done, total: on_progress(done, total, f"training {name}"),
        validate=validate,
        monitor=Monitor(name=f"validation_{own.name}", higher_is_better=own.higher_is_better),
        own_teacher=teacher_of(architecture),
        group=group,
        sync_norm=train_config.sync_norm,
    )
    trained = _record(
        architecture, network, splits, workload, own, result, name=name, seed=seed, device=str(place), group=group
    )
    if group.leads:
        module = deployed_for(workload, network, splits, shape)
        store.delete(f"{folder}/result.json")  # of another training: cut off now, it would speak for the new weights
        trained = _write(store, trained, architecture, module, splits.prepare, gives_logits=workload.gives_logits)
        store.write_json(f"{folder}/result.json", {"run_id": run_id, **trained.as_dict()})
        checkpoint.remove()
        log.info("%s %s: test %s %.4f", name, architecture.label, own.label, trained.test_metric)
    return trained


def training_id(
    architecture: Description,
    train_config: FullTrainingConfig,
    workload: Workload,
    seed: int,
    metric: str,
    starts_from: str = "",
) -> str:
    """Id of everything that a full training's result depends on.

    On which of its metrics is looked at it only does where that decides rates, or when to stop.
    """
    watches = train_config.recipe.watches_metric
    return content_id(
        {
            **({"metric": metric} if watches else {}),
            **({"start": starts_from} if starts_from else {}),
            **({"sync_norm": True} if train_config.sync_norm else {}),
            "architecture": architecture.as_dict(),
            "recipe": train_config.recipe.identity,
            "data": workload.with_train_examples(train_config.train_examples).identity,
            "seed": seed,
            "version": TRAINING_VERSION,
        }
    )


def stored_result(store: Store, name: str, run_id: str, metric: Metric) -> TrainedNetwork | None:
    """The finished training of this id under this name, compared by the metric.

    None where it is not there, or not with the files that it wrote.
    """
    path = f"winner/{name}/result.json"
    if not store.exists(path):
        return None
    data = store.read_json(path)
    if data.pop("run_id", None) != run_id:
        return None
    try:
        check_files(store, data)
        _stored_weights(store, name)
    except StoreError as error:
        log.warning("%s: %s; it is trained again", error.where, error.found)
        return None
    found = TrainedNetwork.from_dict(data)
    return replace(found, metric_name=metric.name, higher_is_better=metric.higher_is_better)


def check_files(store: Store, row: Mapping[str, Any]) -> None:
    """Whether the files of a trained network, by its row, are there and as they were written.

    Of what earlier versions trained no hashes are known: its files have to be there.

    Raises:
        StoreError: naming the first that is gone or holds other bytes.
    """
    kept = row.get("sha256") or {}
    named = (row["weights_path"], row["architecture_path"], row["program_path"])
    for path in dict.fromkeys((*filter(None, named), *kept)):
        if not store.exists(path):
            raise _gone(store, path)
        if path in kept and _sha256(store.read_bytes(path)) != kept[path]:
            raise StoreError(
                store.uri(path), "other bytes than were trained", "the file as it was written", TRAIN_AGAIN
            )


def _gone(store: Store, path: str) -> StoreError:
    return StoreError(store.uri(path), "no such file", "the file that training wrote", TRAIN_AGAIN)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stored_weights(store: Store, name: str) -> dict[str, torch.Tensor]:
    """The trained network's weights; raises StoreError for a file that is damaged or gone."""
    path = f"winner/{name}/weights.safetensors"
    try:
        return unpack(store.read_bytes(path))[0]
    except FileNotFoundError:
        raise _gone(store, path) from None
    except ValueError as error:
        found = f"a damaged file ({error})"
        raise StoreError(store.uri(path), found, "the weights that training wrote", TRAIN_AGAIN) from None


def load_deployed(store: Store, name: str) -> tuple[Deployed, Description]:
    """The trained network with its preparation, from its weights and its architecture.

    Raises:
        StoreError: if one of them is gone, or cannot be read.
    """
    path = f"winner/{name}/architecture.json"
    try:
        description = store.read_json(path)
    except FileNotFoundError:
        raise _gone(store, path) from None
    architecture = description_from_dict(description)
    weights = _stored_weights(store, name)
    network = _remade(store, name, description)
    if network is None:
        network = build_network(architecture, seed=0)
        network.load_state_dict(weights)
    else:
        rebuild.fill(network, weights)
    given = description["input"]
    fitting = Fitting(**given["fitting"]) if "fitting" in given else None  # not in what earlier versions wrote
    scale = Normalisation.from_dict(description["output"]) if "output" in description else None
    shape, dtype = tuple(given["shape"]), given.get("dtype", "float32")
    units = {"in_fractions": not given.get("own_units", False)}
    return deployed(network, Normalisation.from_dict(given), shape, fitting, scale, dtype, **units), architecture


def _remade(store: Store, name: str, description: Mapping[str, Any]) -> nn.Module | None:
    """What a trained model was changed into, made as its files are loaded: they serve where the model is gone.

    None for other networks, and where only what the model came from can make it.
    """
    folder = f"winner/{name}"
    with tempfile.TemporaryDirectory() as local:
        for path in () if store.is_local else store.paths(f"{folder}/{rebuild.SOURCE}"):
            copied = Path(local, path.removeprefix(f"{folder}/"))
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(store.read_bytes(path))
        try:
            return rebuild.remade(description, store.uri(folder) if store.is_local else local)
        except Exception as error:  # a user's own code
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            expected = "a file that makes the model with what is beside it"
            raise StoreError(store.uri(f"{folder}/{rebuild.SOURCE}"), found, expected) from None


def _record(
    architecture: Description,
    network: nn.Module,
    splits: Splits,
    workload: Workload,
    own: Metric,
    result: TrainingResult,
    *,
    name: str,
    seed: int,
    device: str,
    group: Group,
) -> TrainedNetwork:
    """The results; the test examples are looked at here, once."""
    pairs = {"validation": splits.validation, "test": splits.load_test()}
    outputs = {
        split: outputs_of(
            network, inputs, splits.prepare, device=device, reduce=workload.reduced, targets=targets, group=group
        )
        for split, (inputs, targets) in pairs.items()
    }
    each = device_name(resolve_device(device))
    folder = f"winner/{name}"
    return TrainedNetwork(
        name=name,
        genotype=architecture.label,
        seed=seed,
        metrics={
            split: {each: value_of(metric, outputs[split], targets) for each, metric in workload.metrics.items()}
            for split, (_, targets) in pairs.items()
        },
        details=_details(network, splits, workload, outputs["test"], pairs["test"], device),
        metric_name=own.name,
        higher_is_better=own.higher_is_better,
        num_train_examples=len(splits.train[1]),
        num_validation_examples=len(splits.validation[1]),
        num_test_examples=len(pairs["test"][1]),
        history=result.history,
        wall_s=result.wall_s,
        steps=result.steps,
        parts=result.parts,
        examples_per_s=result.examples_per_s,
        device=each if group.size == 1 else f"{group.size} workers, each {each}",
        output_names=splits.output_names,
        weights_path=f"{folder}/weights.safetensors",
        architecture_path=f"{folder}/architecture.json",
        program_path=f"{folder}/program.pt2",
    )


def _details(
    network: nn.Module, splits: Splits, workload: Workload, outputs: torch.Tensor, pair: Pair, device: str
) -> dict[str, Any]:
    """What the workload keeps of the test split, and some of its examples, evenly apart."""
    inputs, targets = pair
    all_targets: Any = targets.to(outputs.device)
    known = {**workload.details(outputs, all_targets), **_beside_untouched(workload, outputs, pair)}
    chosen = torch.tensor(spread(len(targets), MOST_SHOWN))
    some = inputs[chosen]
    shown = workload.shown(some, outputs_of(network, some, splits.prepare, device=device).cpu(), targets[chosen])
    return {**known, **({"shown": [dict(each) for each in shown]} if shown else {})}


def _beside_untouched(workload: Workload, outputs: torch.Tensor, pair: Pair) -> dict[str, Any]:
    """A table of the metrics of the outputs, and of the inputs taken for them, where that can be."""
    both = zip(batches_of(pair[0], EVAL_BATCH), batches_of(pair[1], EVAL_BATCH), strict=True)
    found = list[torch.Tensor]()
    for inputs, targets in both:
        reduced = workload.untouched(inputs, targets)
        if reduced is None:
            return {}
        found.append(reduced)
    metrics = workload.metrics.values()
    rows = [
        (what, *(f"{value_of(metric, each, pair[1]):.4g} {metric.unit}".rstrip() for metric in metrics))
        for what, each in (("the network's outputs", outputs), ("the inputs as they are", torch.cat(found)))
    ]
    return {"table": table(("test split", *(metric.label for metric in metrics)), rows)}


def _write(
    store: Store,
    trained: TrainedNetwork,
    architecture: Description,
    module: Deployed,
    prepare: Normalisation,
    *,
    gives_logits: bool,
) -> TrainedNetwork:
    """Write the network's files; returns it with the paths of those that could be made, and their hashes."""
    description = _description(architecture, module, prepare, trained.output_names, gives_logits=gives_logits)
    folder, sha256 = f"winner/{trained.name}", dict[str, str]()

    def keep(path: str, data: bytes) -> None:
        store.write_bytes(path, data)
        sha256[path] = _sha256(data)

    keep(trained.weights_path, pack(module.network.state_dict()))
    keep(trained.architecture_path, json_bytes(description))
    store.delete(f"{folder}/{rebuild.SOURCE}")  # of another model, trained under this name before
    for path, content in source_files(description.get("model", {})).items():
        keep(f"{folder}/{path}", content)
    try:
        keep(trained.program_path, exported_bytes(module))
    except NasError as error:  # the training is not lost for it
        log.warning("%s: no program: %s", trained.name, error.found)
        store.delete(trained.program_path)
        return replace(trained, program_path="", sha256=sha256)
    return replace(trained, sha256=sha256)


def _description(
    architecture: Description,
    module: Deployed,
    prepare: Normalisation,
    output_names: tuple[str, ...],
    *,
    gives_logits: bool,
) -> dict[str, Any]:
    """What ``architecture.json`` says: the network, what it takes and what it gives."""
    units = "in [0, 1]" if module.in_fractions else "in the data's own units"
    values = f"images of any size as floats {units} or as uint8" if module.takes_images else "floats"
    values = values if module.takes_floats else f"whole numbers, {module.dtype}"
    fitting = {"fitting": asdict(module.fitting)} if module.takes_images else {}
    known: dict[str, Any] = {} if module.takes_floats else {"dtype": module.dtype}
    known |= {"own_units": True} if module.takes_images and not module.in_fractions else {}
    return {
        **architecture.as_dict(),
        "input": {"values": values, "shape": list(module.input_shape), **prepare.as_dict(), **fitting, **known},
        "output_names": list(output_names),
        "gives_logits": gives_logits,
        **({"output": module.scale.as_dict()} if module.scale.mean else {}),
    }
