"""The supernet scorer: shared weights trained once, then every network rated as a path through them.

Training samples paths uniformly (Guo et al., 2020) and adds the smallest and
the largest network to every step (the sandwich rule, Yu et al., 2020).
Rating recalibrates normalisation statistics for each network and measures
validation accuracy; networks that share a prefix share its computation
(``supernet_pass``).
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_core.base.errors import StoreError
from nas_core.base.identity import content_id, evaluation_seed
from nas_core.costs import extreme_genotypes
from nas_core.families.shared_weights import SharedWeights
from nas_core.records.evaluations import Evaluation
from nas_core.records.store import Store
from nas_core.scoring import OnProgress, study_scorer_id, supernet_path
from nas_core.scoring.scored_rows import Rows
from nas_core.scoring.settings import SupernetScorerConfig
from nas_core.scoring.supernet_pass import Activations, shared_prefix_logits
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.training.checkpoint import Checkpoint, pack, unpack
from nas_core.training.loop import accuracy, device_name, loss_and_backward, resolve_device, train
from nas_core.workloads.images import ImageData, check_data, load_data, resized

if TYPE_CHECKING:
    from nas_core.study.config import StudyConfig

log = logging.getLogger(__name__)

CALIBRATION_BATCH = 128  # most images per calibration batch: part of what is measured, so no setting
CHECKPOINT_EVERY_S = 30.0
SIDE_BY_SIDE_ON_GPU = 16
MAX_ACTIVATION_BYTES = 2 * 2**30  # a pass over more images than fit is made in parts


class SupernetScorer:
    """``prepare`` trains the shared weights into the store; ``evaluate`` rates networks with them."""

    metric_name = "validation_accuracy"
    higher_is_better = True
    split = "validation"

    def __init__(self, config: "StudyConfig", space: SearchSpace, store: Store, device: str = "auto") -> None:
        assert isinstance(config.scorer, SupernetScorerConfig)
        self.study, self.settings, self.space, self.store = config, config.scorer, space, store
        self.device = resolve_device(device)
        self.scorer_id = study_scorer_id(config)
        self.seed = evaluation_seed(config.seed, "supernet")
        self.weights_path = supernet_path(config, space.space_id)

    @property
    def prepared(self) -> bool:
        return self.store.exists(self.weights_path)

    # training

    def prepare(self, on_progress: OnProgress) -> None:
        """Train the shared weights, or go on where an interrupted training stopped.

        Raises:
            DataError: if images are missing.
            TrainingDiverged: if the loss is no finite number.
        """
        if self.prepared:
            return
        check_data(self.study.data)
        network = SharedWeights(self.space, self.seed)
        sampler = PathSampler(network, self.space, self.settings, self.seed)
        checkpoint = Checkpoint(
            store=self.store,
            path=self.weights_path.replace(".safetensors", ".checkpoint.safetensors"),
            run_id=content_id({"scorer": self.scorer_id, "space": self.space.space_id, "seed": self.seed}),
            every_s=CHECKPOINT_EVERY_S,
        )
        result = train(
            network,
            self.settings.recipe,
            self.data.train_images,
            self.data.train_labels,
            normalise=self.data.normalisation,
            seed=self.seed,
            device=self.device,
            checkpoint=checkpoint,
            on_step=lambda done, total: on_progress(done, total, "training shared weights"),
            backward=sampler,
            before_update=sampler.even_out,
        )
        log.info("supernet %s: %d steps in %.1f s", self.scorer_id, result.steps, result.wall_s)
        self.store.write_json(self.weights_path.replace(".safetensors", ".history.json"), list(result.history))
        self.store.write_bytes(self.weights_path, pack(network.state_dict()))
        checkpoint.remove()

    # rating

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """Rows of the genotypes; each one's seconds are its share of the pass it was part of."""
        network, num_images = self.network, len(self.data.validation_labels)  # loaded before the clock starts
        began = time.perf_counter()
        outcomes: dict[Genotype, float | Exception] = {}
        valid = []
        for genotype in genotypes:
            try:
                valid.append(self.space.check(genotype))
            except Exception as error:
                outcomes[genotype] = error
        for resolution in sorted({self.space.resolution_of(genotype) for genotype in valid}):
            mine = [genotype for genotype in valid if self.space.resolution_of(genotype) == resolution]
            outcomes |= self._accuracies(network, mine, resolution)
        wall_s = (time.perf_counter() - began) / max(1, len(genotypes))
        return [self._row(genotype, outcomes[genotype], num_images, wall_s) for genotype in genotypes]

    def _row(self, genotype: Genotype, outcome: float | Exception, num_images: int, wall_s: float) -> Evaluation:
        if isinstance(outcome, Exception):
            return self.rows.failed(genotype, outcome, wall_s)
        return self.rows.ok(genotype, outcome, num_images, wall_s)

    def _accuracies(
        self, network: SharedWeights, genotypes: Sequence[Genotype], resolution: int
    ) -> dict[Genotype, float | Exception]:
        """Validation accuracy of each network, or what it raised."""
        logits: dict[Genotype, list[torch.Tensor]] = {genotype: [] for genotype in genotypes}
        failures: dict[Genotype, float | Exception] = {}
        for images in self._image_parts(network, resolution):
            for genotype, outcome in shared_prefix_logits(network, genotypes, images, self.side_by_side).items():
                if isinstance(outcome, Exception):
                    failures[genotype] = outcome
                else:
                    logits[genotype].append(outcome)
        labels = self.data.validation_labels.to(self.device)
        return {genotype: failures.get(genotype) or _accuracy(parts, labels) for genotype, parts in logits.items()}

    def _image_parts(self, network: SharedWeights, resolution: int) -> list[Activations]:
        """Calibration and validation images, normalised; validation in parts if its activations are too large."""
        settings = self.settings
        images = self.data.train_images[: settings.calibration_examples]
        # equal ones: each counts as much as the others, and none is a single image, which has no statistics
        calibration = self._batches(images, resolution, -(-len(images) // -(-len(images) // CALIBRATION_BATCH)))
        with torch.inference_mode():
            stem_bytes = network.stem.eval()(calibration[0][:1]).nbytes
        held = stem_bytes * self.side_by_side * 2 * len(self.data.validation_labels)
        num_parts = max(1, -(-held // MAX_ACTIVATION_BYTES))
        return [
            Activations(calibration=calibration, rated=self._batches(part, resolution, settings.eval_batch_size))
            for part in self.data.validation_images.tensor_split(num_parts)
        ]

    def _batches(self, images: torch.Tensor, resolution: int, size: int) -> list[torch.Tensor]:
        return [
            resized(self.data.normalisation.apply(batch.to(self.device)), resolution).contiguous(
                memory_format=torch.channels_last
            )
            for batch in torch.split(images, size)
        ]

    # loaded once per process

    @property
    def side_by_side(self) -> int:
        default = SIDE_BY_SIDE_ON_GPU if self.device.type == "cuda" else 1
        return self.settings.side_by_side or default

    @cached_property
    def data(self) -> ImageData:
        """Images at the largest resolution; smaller ones are made from it, in training and in rating alike."""
        return load_data(self.study.data, max(self.space.resolutions), self.space.in_channels)

    @cached_property
    def network(self) -> SharedWeights:
        """The trained weights.

        Raises:
            StoreError: if they are not in the store.
        """
        if not self.prepared:
            raise StoreError(self.store.uri(self.weights_path), "no file", "trained shared weights", "Call prepare.")
        network = SharedWeights(self.space, self.seed)
        network.load_state_dict(unpack(self.store.read_bytes(self.weights_path))[0])
        network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.eval()
        return network

    @cached_property
    def rows(self) -> Rows:
        return Rows(
            space_id=self.space.space_id,
            scorer_id=self.scorer_id,
            seed=self.study.seed,
            metric_name=self.metric_name,
            higher_is_better=self.higher_is_better,
            split=self.split,
            device=device_name(self.device),
        )


def _accuracy(parts: Sequence[torch.Tensor], labels: torch.Tensor) -> float | Exception:
    try:
        return accuracy(torch.cat(list(parts)), labels)
    except Exception as error:  # logits that are no numbers
        return error


class PathSampler:
    """The backward pass of a supernet: gradients of several paths on the same images.

    Each block's gradient is the mean over the paths that take it (`even_out`),
    so a block that few paths take learns as fast as those of the sandwich.
    """

    def __init__(self, network: SharedWeights, space: SearchSpace, settings: SupernetScorerConfig, seed: int) -> None:
        self.network, self.space, self.settings, self.seed = network, space, settings, seed
        self.extremes = list(extreme_genotypes(space)) if settings.sandwich else []

    def paths(self, step: int) -> list[Genotype]:
        """The networks trained in a step: a function of the seed and the step alone."""
        rng = np.random.default_rng([self.seed, step])
        num_random = self.settings.random_paths or (0 if self.extremes else 1)
        return [*self.extremes, *(self.space.sample(rng) for _ in range(num_random))]

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, step: int, weight: float) -> torch.Tensor:
        paths = self.paths(step)
        losses = []
        for genotype in paths:
            at_size = resized(images, self.space.resolution_of(genotype))
            forward = partial(self.network, genotype=genotype)
            losses.append(loss_and_backward(forward, at_size, labels, self.settings.recipe, weight / len(paths)))
        return torch.stack(losses).mean()

    def even_out(self, step: int) -> None:
        """Turn each block's gradient, summed over its paths and divided by all paths, into the mean over its own."""
        paths = self.paths(step)
        for position in range(self.space.num_positions):
            for choice, uses in Counter(genotype.choices[position] for genotype in paths).items():
                block = self.network.block(position, choice)
                gradients = [p.grad for p in block.parameters() if p.grad is not None]
                if gradients and uses < len(paths):
                    torch._foreach_mul_(gradients, len(paths) / uses)
