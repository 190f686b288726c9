"""Training of shared weights, and networks rated with them.

Rating recalibrates normalisation statistics for each network and measures the
metric on the validation split; networks that share a prefix share its
computation (``supernet_pass``).
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from nas_core.base.errors import StoreError
from nas_core.base.identity import content_id
from nas_core.costs import extreme_genotypes
from nas_core.families.family import Family
from nas_core.families.shared_weights import SharedWeights
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.scorer import OnProgress
from nas_core.scoring.supernet_pass import Activations, recalibrated_outputs, shared_prefix_logits
from nas_core.space.genotypes import Genotype
from nas_core.training.checkpoint import Checkpoint, pack, stored_weights
from nas_core.training.group import current
from nas_core.training.layout import laid_out
from nas_core.training.loop import TrainingDiverged, loss_and_backward, resolve_device, train, value_of
from nas_core.training.objective import LossOf
from nas_core.workloads.examples import Examples, batches_of, in_memory
from nas_core.workloads.images.tensors import resized
from nas_core.workloads.metrics import Metric
from nas_core.workloads.workload import Splits, metric_of

if TYPE_CHECKING:
    from nas_core.scoring.supernet import SupernetScorer

log = logging.getLogger(__name__)

CALIBRATION_BATCH = 128  # most images per calibration batch: part of what is measured, so no setting
CHECKPOINT_EVERY_S = 30.0
SIDE_BY_SIDE_ON_GPU = 16
MAX_ACTIVATION_BYTES = 2 * 2**30  # a pass over more images than fit is made in parts


class SupernetWeights:
    """The shared weights of one scorer: trained into its store, and networks rated with them."""

    def __init__(self, scorer: "SupernetScorer") -> None:
        self.scorer, self.settings, self.workload = scorer, scorer.settings, scorer.workload
        self.family, self.space, self.store = scorer.family, scorer.family.space, scorer.store
        self.device = resolve_device(scorer.setting.device)
        self.metric = metric_of(scorer.workload, scorer.setting.metric)

    def _fresh(self) -> nn.Module:
        network = self.family.shared(self.scorer.seed)
        assert network is not None, "`check` refuses a family without a shared network"
        return network

    def train(self, on_progress: OnProgress) -> None:
        """Train, or go on where an interrupted training stopped, and store the weights.

        Processes that train together all call this alike; the first of them stores the weights.

        Raises:
            DataError: if data are missing.
            TrainingDiverged: if the loss is no finite number.
        """
        scorer, network, group = self.scorer, self._fresh(), current()
        sampler = PathSampler(network, self.family, self.settings, scorer.seed)
        checkpoint = Checkpoint(
            store=self.store,
            path=scorer.weights_path.replace(".safetensors", ".checkpoint.safetensors"),
            run_id=content_id({"weights": scorer.weights_id, "space": self.space.space_id, "seed": scorer.seed}),
            every_s=CHECKPOINT_EVERY_S,
        )
        try:
            result = train(
                network,
                self.settings.recipe,
                self.data,
                self.workload,
                seed=scorer.seed,
                device=self.device,
                checkpoint=checkpoint,
                on_step=lambda done, total: on_progress(done, total, "training shared weights"),
                backward=sampler,
                before_update=sampler.even_out,
                group=group,
                sync_norm=True,  # the scores are then the same, whatever the number of processes
            )
        except TrainingDiverged as error:
            where, advice = f"shared weights of {self.space.name}, {error.where}", "Try a lower `scorer.recipe.lr`."
            raise TrainingDiverged(where, error.found, error.expected, advice) from None
        if not group.leads:
            return
        log.info("supernet %s: %d steps in %.1f s", scorer.scorer_id, result.steps, result.wall_s)
        self.store.write_json(scorer.weights_path.replace(".safetensors", ".history.json"), list(result.history))
        self.store.write_bytes(scorer.weights_path, pack(network.state_dict()))
        checkpoint.remove()

    # rating

    def rate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """Rows of the genotypes; each one's seconds are its share of the pass it was part of."""
        network, num_examples = self.network, len(self.data.validation[1])  # loaded before the clock starts
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
            outcomes |= self._measured(network, mine, resolution)
        wall_s = (time.perf_counter() - began) / max(1, len(genotypes))
        return [self.scorer.rows.of(genotype, outcomes[genotype], num_examples, wall_s) for genotype in genotypes]

    def _measured(
        self, network: nn.Module, genotypes: Sequence[Genotype], resolution: int
    ) -> dict[Genotype, float | Exception]:
        """The metric of each network on the validation split, or what it raised."""
        outputs: dict[Genotype, list[torch.Tensor]] = {genotype: [] for genotype in genotypes}
        failures: dict[Genotype, float | Exception] = {}
        targets, done = self.data.validation[1].to(self.device), 0
        for inputs in self._input_parts(network, resolution, len(genotypes)):
            mine = in_memory(targets[done : done + sum(map(len, inputs.rated))])
            done += len(mine)
            for genotype, outcome in self._outputs(network, genotypes, inputs).items():
                if isinstance(outcome, Exception):
                    failures[genotype] = outcome
                else:
                    outputs[genotype].append(self.workload.reduced(outcome, mine))
        return {
            genotype: failures.get(genotype) or _value(self.metric, parts, targets)
            for genotype, parts in outputs.items()
        }

    def _outputs(
        self, network: nn.Module, genotypes: Sequence[Genotype], inputs: Activations
    ) -> dict[Genotype, torch.Tensor | Exception]:
        """Outputs of every network; those of a chain share the computation of their common prefixes."""
        if isinstance(network, SharedWeights) and network.are_in_a_row:
            return shared_prefix_logits(network, genotypes, inputs, self.side_by_side)
        outcomes: dict[Genotype, torch.Tensor | Exception] = {}
        for genotype in genotypes:
            try:
                outcomes[genotype] = recalibrated_outputs(network, genotype, inputs)
            except Exception as error:  # one network's failure is that network's row
                outcomes[genotype] = error
        return outcomes

    def _input_parts(self, network: nn.Module, resolution: int, num_genotypes: int = 1) -> Iterator[Activations]:
        """Calibration and validation inputs, prepared; validation in parts if its activations are too large."""
        settings = self.settings
        inputs = self.data.train[0][: settings.calibration_examples]
        # equal ones: each counts as much as the others, and none is a single example, which has no statistics
        calibration = self._batches(inputs, resolution, -(-len(inputs) // -(-len(inputs) // CALIBRATION_BATCH)))
        with torch.inference_mode():
            first = (
                network.stem.eval()(calibration[0][:1]) if isinstance(network, SharedWeights) else calibration[0][:1]
            )
            stem_bytes = first.nbytes
        held = stem_bytes * self.side_by_side * 2 * len(self.data.validation[1])
        if self.workload.sample.dense:  # whole maps of every network
            map_bytes = 4 * self.workload.sample.num_outputs * resolution**2
            held = max(held, map_bytes * num_genotypes * len(self.data.validation[1]))
        num_parts = max(1, -(-held // MAX_ACTIVATION_BYTES))
        validation = self.data.validation[0]
        bounds = [len(validation) * part // num_parts for part in range(num_parts + 1)]
        for start, stop in pairwise(bounds):  # one at a time is in memory
            rated = self._batches(validation[start:stop], resolution, settings.eval_batch_size)
            yield Activations(calibration=calibration, rated=rated)

    def _batches(self, inputs: "torch.Tensor | Examples", resolution: int, size: int) -> list[torch.Tensor]:
        return [
            laid_out(resized(self.data.prepare(batch.to(self.device)), resolution))
            for batch in batches_of(inputs, size)
        ]

    # loaded once per process

    @property
    def side_by_side(self) -> int:
        default = SIDE_BY_SIDE_ON_GPU if self.device.type == "cuda" else 1
        return self.settings.side_by_side or default

    @cached_property
    def data(self) -> Splits:
        """Images at the largest resolution; smaller ones are made from it, in training and in rating alike."""
        shape = self.workload.sample.shape_at(max(self.space.resolutions), self.space.in_channels)
        return self.workload.load(shape)

    @cached_property
    def network(self) -> nn.Module:
        """The trained weights.

        Raises:
            StoreError: if they are not in the store, or damaged.
        """
        path = self.scorer.weights_path
        if not self.scorer.prepared:
            raise StoreError(self.store.uri(path), "no file", "trained shared weights", "Call prepare.")
        network = self._fresh()
        network.load_state_dict(stored_weights(self.store, path))
        network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.eval()
        return network


def _value(metric: Metric, parts: Sequence[torch.Tensor], targets: "torch.Tensor | Examples") -> float | Exception:
    try:
        return value_of(metric, torch.cat(list(parts)), targets)
    except Exception as error:  # outputs that are no numbers
        return error


class PathSampler:
    """The backward pass of a supernet: gradients of several paths on the same examples.

    Each block's gradient is the mean over the paths that take it (`even_out`),
    so a block that few paths take learns as fast as those of the sandwich.
    """

    def __init__(self, network: nn.Module, family: Family, settings: Any, seed: int) -> None:
        self.network, self.space, self.settings, self.seed = network, family.space, settings, seed
        self.extremes = list(extreme_genotypes(family)) if settings.sandwich else []

    def paths(self, step: int) -> list[Genotype]:
        """The networks trained in a step: a function of the seed and the step alone."""
        rng = np.random.default_rng([self.seed, step])
        num_random = self.settings.random_paths or (0 if self.extremes else 1)
        return [*self.extremes, *(self.space.sample(rng) for _ in range(num_random))]

    def __call__(self, inputs: torch.Tensor, loss_of: LossOf, step: int, weight: float | torch.Tensor) -> torch.Tensor:
        paths = self.paths(step)
        losses = []
        for genotype in paths:
            at_size = resized(inputs, self.space.resolution_of(genotype))
            forward = partial(self.network, genotype=genotype)
            share = weight / len(paths)
            losses.append(loss_and_backward(forward, at_size, loss_of, self.settings.recipe, share))
        return torch.stack(losses).mean()

    def even_out(self, step: int) -> None:
        """Turn each block's gradient, summed over its paths and divided by all paths, into the mean over its own."""
        paths = self.paths(step)
        for position in range(self.space.num_positions):
            for choice, uses in Counter(genotype.choices[position] for genotype in paths).items():
                block: nn.Module = self.network.block(position, choice)  # type: ignore[operator]
                gradients = [p.grad for p in block.parameters() if p.grad is not None]
                if gradients and uses < len(paths):
                    torch._foreach_mul_(gradients, len(paths) / uses)
