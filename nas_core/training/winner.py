"""The full training of one network: resumable, tested once, left in the store ready to use.

``winner/<name>/`` holds ``weights.safetensors``, ``architecture.json``,
``program.pt2`` and, written last, ``result.json``: a training whose result is
there is not repeated.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from nas_core.base.identity import content_id
from nas_core.records.store import Store
from nas_core.study.stages import TRAINING_VERSION
from nas_core.training.checkpoint import Checkpoint, pack, unpack
from nas_core.training.export import Deployed, deployed, exported_bytes
from nas_core.training.loop import TrainingResult, device_name, evaluate_accuracy, resolve_device, train
from nas_core.training.network import Description, build_network, description_from_dict
from nas_core.training.settings import FullTrainingConfig
from nas_core.workloads.images import ImageData, Normalisation, load_data
from nas_core.workloads.settings import DataConfig

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network's results and where its files are (paths in the study's store).

    ``genotype`` is the label of a network that was designed and not chosen from
    a space. Accuracies are fractions in [0, 1]; ``history`` has one row per epoch
    (epoch, step, lr, loss, validation_accuracy); ``wall_s`` is seconds of
    training, those before an interruption included.
    """

    name: str
    genotype: str
    seed: int
    validation_accuracy: float
    test_accuracy: float
    num_train_examples: int
    num_validation_examples: int
    num_test_examples: int
    history: tuple[dict[str, float], ...]
    wall_s: float
    steps: int
    parts: int
    device: str
    class_names: tuple[str, ...]
    weights_path: str
    architecture_path: str
    program_path: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrainedNetwork":
        lists = {"history": tuple(data["history"]), "class_names": tuple(data["class_names"])}
        return cls(**{**data, **lists})


def train_network(
    architecture: Description,
    train_config: FullTrainingConfig,
    data_config: DataConfig,
    *,
    seed: int,
    device: str = "auto",
    store: Store,
    name: str,
    on_progress: OnProgress | None = None,
) -> TrainedNetwork:
    """Train the architecture with the full recipe and store it under ``winner/<name>/``.

    Returns at once if that very training is stored; goes on from a checkpoint
    if it was interrupted.

    Raises:
        DataError: if images are missing.
        TrainingDiverged: if the loss or the logits are no finite numbers.
    """
    folder, place = f"winner/{name}", resolve_device(device)
    run_id = training_id(architecture, train_config, data_config, seed)
    if (stored := stored_result(store, name, run_id)) is not None:
        return stored
    wanted = data_config.model_copy(update={"train_examples": train_config.train_examples})
    data = load_data(wanted, architecture.resolution, architecture.in_channels)
    network = build_network(architecture, seed)
    checkpoint = Checkpoint(
        store=store,
        path=f"{folder}/checkpoint.safetensors",
        run_id=run_id,
        every_s=train_config.checkpoint_every_s,
    )
    result = train(
        network,
        train_config.recipe,
        data.train_images,
        data.train_labels,
        normalise=data.normalisation,
        seed=seed,
        device=place,
        checkpoint=checkpoint,
        on_step=None if on_progress is None else lambda done, total: on_progress(done, total, f"training {name}"),
        validate=lambda trained: _validation_accuracy(trained, data, str(place)),
    )
    trained = _record(architecture, network, data, result, name=name, seed=seed, device=str(place))
    store.delete(f"{folder}/result.json")  # of another training: cut off now, it would speak for the new weights
    _write(store, trained, architecture, network, data.normalisation)
    store.write_json(f"{folder}/result.json", {"run_id": run_id, **trained.as_dict()})
    checkpoint.remove()
    log.info("%s %s: test accuracy %.4f", name, architecture.label, trained.test_accuracy)
    return trained


def training_id(architecture: Description, train_config: FullTrainingConfig, data_config: DataConfig, seed: int) -> str:
    """Id of everything that a full training's result depends on."""
    data = {key: value for key, value in data_config.identity.items() if key != "train_examples"}
    return content_id(
        {
            "architecture": architecture.as_dict(),
            "recipe": train_config.recipe.model_dump(mode="json"),
            "train_examples": train_config.train_examples,
            "data": data,
            "seed": seed,
            "version": TRAINING_VERSION,
        }
    )


def stored_result(store: Store, name: str, run_id: str) -> TrainedNetwork | None:
    """The finished training of this id under this name, if it is there."""
    path = f"winner/{name}/result.json"
    if not store.exists(path):
        return None
    data = store.read_json(path)
    return TrainedNetwork.from_dict(data) if data.pop("run_id", None) == run_id else None


def load_deployed(store: Store, name: str) -> tuple[Deployed, Description]:
    """The trained network with its normalisation, from its weights and its architecture."""
    description = store.read_json(f"winner/{name}/architecture.json")
    architecture = description_from_dict(description)
    network = build_network(architecture, seed=0)
    network.load_state_dict(unpack(store.read_bytes(f"winner/{name}/weights.safetensors"))[0])
    mean, std = description["input"]["mean"], description["input"]["std"]
    return deployed(network, Normalisation(mean=tuple(mean), std=tuple(std))), architecture


def _validation_accuracy(network: nn.Module, data: ImageData, device: str) -> float:
    images, labels = data.validation_images, data.validation_labels
    return evaluate_accuracy(network, images, labels, normalise=data.normalisation, device=device)


def _record(
    architecture: Description,
    network: nn.Module,
    data: ImageData,
    result: TrainingResult,
    *,
    name: str,
    seed: int,
    device: str,
) -> TrainedNetwork:
    """The results; the test images are looked at here, once."""
    test_images, test_labels = data.test()
    folder = f"winner/{name}"
    return TrainedNetwork(
        name=name,
        genotype=architecture.label,
        seed=seed,
        validation_accuracy=_validation_accuracy(network, data, device),
        test_accuracy=evaluate_accuracy(network, test_images, test_labels, normalise=data.normalisation, device=device),
        num_train_examples=len(data.train_labels),
        num_validation_examples=len(data.validation_labels),
        num_test_examples=len(test_labels),
        history=result.history,
        wall_s=result.wall_s,
        steps=result.steps,
        parts=result.parts,
        device=device_name(resolve_device(device)),
        class_names=data.class_names,
        weights_path=f"{folder}/weights.safetensors",
        architecture_path=f"{folder}/architecture.json",
        program_path=f"{folder}/program.pt2",
    )


def _write(
    store: Store,
    trained: TrainedNetwork,
    architecture: Description,
    network: nn.Module,
    normalisation: Normalisation,
) -> None:
    store.write_bytes(trained.weights_path, pack(network.state_dict()))
    description = {
        **architecture.as_dict(),
        "input": {"range": "floats in [0, 1]", "mean": list(normalisation.mean), "std": list(normalisation.std)},
        "class_names": list(trained.class_names),
    }
    store.write_json(trained.architecture_path, description)
    program = exported_bytes(deployed(network, normalisation), architecture.in_channels, architecture.resolution)
    store.write_bytes(trained.program_path, program)
