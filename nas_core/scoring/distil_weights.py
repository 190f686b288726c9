"""Alternatives made of a trained model's blocks: cut, fitted, distilled; and networks assembled of them, rated.

N = examples, B = examples of a batch.
"""

import copy
import logging
import math
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from nas_core.base.errors import SpaceError
from nas_core.base.identity import content_id, evaluation_seed
from nas_core.families.batch_norm import norms_of
from nas_core.families.model.assembled import Assembled, Fixed
from nas_core.families.model.assembling import calls_of, drafted, learning, observed, with_fresh_weights
from nas_core.families.model.draft import Call, Original
from nas_core.families.model.rebuild import fill
from nas_core.families.model.reconstruction import Reconstruction
from nas_core.families.trained_model import TrainedModel
from nas_core.records.evaluations import Evaluation
from nas_core.scoring.rated_split import PreparedBatches, map_step, thinned
from nas_core.scoring.scorer import OnProgress
from nas_core.space.genotypes import Genotype
from nas_core.training.checkpoint import Checkpoint, pack, stored_weights
from nas_core.training.features import spread, squared_error
from nas_core.training.layout import layout_of
from nas_core.training.loop import TrainingDiverged, autocast, evaluated_batch, resolve_device, train, value_of
from nas_core.training.objective import LossOf
from nas_core.training.optimizers import Schedule, clip_gradients
from nas_core.training.settings import OWN, TeacherConfig
from nas_core.training.teacher import OwnModel
from nas_core.workloads.examples import Examples, batches_of
from nas_core.workloads.targets import calibrated_loss
from nas_core.workloads.workload import Splits, metric_of

if TYPE_CHECKING:
    from nas_core.scoring.distil import DistilScorer

log = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 30.0
CALIBRATION_BATCH = 128  # most examples per calibration batch: part of what is measured, so no setting
LARGE = 3 * 256**2  # values of an example: of larger ones fewer are taken at a time, or they would fill the memory
FEWEST = 16  # but so many, for statistics and fits
PREPARED_SHARE = 0.25  # of the memory stated that a split's prepared batches may take
BYTES_TRAINED = 20  # of a weight in training: itself, its gradient, the optimizer's two averages, what it began as
SMOOTHING = 0.98  # of the losses by which an alternative is found to be done
RECOVERY_TEMPERATURE = 2.0  # of both outputs while networks are distilled before they are rated
RECOVERY_FEATURES = 1.0  # weight of what their blocks give meanwhile
NOT_OF_ALL = {"clip_norm": None, "dropout": 0.0, "drop_path": 0.0}  # gradients are clipped one by one, nothing dropped
BETTER = 0.995  # share of the lowest loss so far below which a loss counts as lower


def _fewer(wanted: int, inputs: torch.Tensor | Examples) -> int:
    """So many of the inputs, fewer of large ones."""
    most = wanted * LARGE // math.prod(inputs.shape[1:])
    return min(wanted, max(FEWEST, most))


def _check_called(paths: Iterable[str], called: Container[str]) -> None:
    """Raises SpaceError for a position of which the model makes no use for some examples of the data."""
    for path in paths:
        if path not in called:
            found, advice = "a module that the model does not call for some examples", f"Keep it: --keep {path}"
            raise SpaceError(f"position {path}", found, "one called once for all that there are", advice)


def _learns(module: nn.Module) -> bool:
    """Whether there is anything of it to train."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _is_finite(values: torch.Tensor) -> bool:
    return bool(values.isfinite().all())


def _forget_gradients(parameters: Iterable[nn.Parameter], condition: torch.Tensor) -> None:
    """Set gradients to 0 where the condition, a truth value on the device, holds; nothing waits for it."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(condition, 0.0)


class DistilledBlocks:
    """The alternatives of one scorer: made into its store, and networks of them rated."""

    def __init__(self, scorer: "DistilScorer") -> None:
        self.scorer, self.settings, self.workload = scorer, scorer.settings, scorer.workload
        self.family = cast(TrainedModel, scorer.family)
        self.space, self.store = scorer.family.space, scorer.store
        self.device = resolve_device(scorer.setting.device)
        self.places = self.family.structure.split.places

    @cached_property
    def data(self) -> Splits:
        return self.workload.load(self.family.sample.shape)

    @cached_property
    def teacher(self) -> nn.Module:
        """The trained model on the device; nothing here changes it. The family's own stays on the CPU."""
        return copy.deepcopy(self.family.teacher).to(self.device)

    # making

    def make(self, positions: Sequence[int], on_progress: OnProgress) -> None:
        """Make and store the alternatives of the positions, as many at a time as fit into the memory stated."""
        groups = self._groups(positions)
        for number, group in enumerate(groups):
            note = f"group {number + 1} of {len(groups)}" if len(groups) > 1 else ""
            samples = self._samples(group)
            students = Students({position: self._initial(position, samples) for position in group})
            del samples  # before the training takes its memory
            if self.settings.train and _learns(students):
                self._train(students, group, lambda done, total, note=note: on_progress(done, total, note))
            for position in group:
                self.store.write_bytes(self.scorer.weights_path(position), pack(students.of(position).state_dict()))

    def _groups(self, positions: Sequence[int]) -> list[list[int]]:
        limit, groups = self.settings.memory_gb * 1e9, list[list[int]]()
        held = float("inf")
        for position in positions:
            wanted = self._bytes(position)
            if held + wanted > limit:
                groups.append([])
                held = 0.0
            groups[-1].append(position)
            held += wanted
        return groups

    def _bytes(self, position: int) -> float:
        """What a position takes at most: its samples, or its alternatives in training and activations of a batch."""
        place, batch = self.places[position], self.settings.recipe.batch_size
        weights = sum(
            parameter.numel()
            for candidate in self.family.structure.candidates[position]
            for parameter in candidate.structure.parameters()
        )
        values = place.rows * (math.prod(place.in_shape) + math.prod(place.out_shape))
        inner = 4  # tensors of the block's size that one alternative keeps for its backward pass
        trained = BYTES_TRAINED * weights + 4 * batch * values * (1 + inner)
        samples = _fewer(self.settings.samples, self.data.train[0])
        return float(max(trained, 4 * samples * values))

    def _initial(self, position: int, samples: Mapping[str, Call]) -> nn.ModuleList:
        """The position's alternatives with what the model's block and the samples give them."""
        place, structure = self.places[position], self.family.structure
        original = Original(
            block=self.family.teacher.get_submodule(place.path),
            call=structure.calls[place.path],
            samples=samples.get(place.path),
            is_branch=place.is_branch,
        )
        made = []
        with torch.random.fork_rng(devices=[]):  # where there is nothing to begin with, weights are the seed's
            torch.manual_seed(evaluation_seed(self.scorer.setting.seed, f"alternatives {position}"))
            for candidate in structure.candidates[position]:
                draft = drafted(original, candidate.alternative)
                made.append(draft.block.requires_grad_(False) if draft.is_solved else learning(draft.block))
        return nn.ModuleList(made)

    def _samples(self, positions: Sequence[int]) -> dict[str, Call]:
        """How the model calls these positions for the samples, on the device."""
        if not self.settings.samples:
            return {}
        paths = [self.places[position].path for position in positions]
        found = calls_of(self.teacher, paths, self._prepared(self.settings.samples).to(self.device))
        _check_called(paths, found)
        return found

    def _prepared(self, most: int) -> torch.Tensor:
        """The first training examples as a network takes them, on the CPU: so many at most, fewer of large ones."""
        inputs = self.data.train[0]
        (batch,) = batches_of(inputs[: _fewer(most, inputs)], len(inputs))
        return self.data.prepare(batch)

    def _train(self, students: "Students", positions: Sequence[int], on_step: Any) -> None:
        scorer = self.scorer
        paths = {position: self.places[position].path for position in positions}
        distiller = Distiller(self.teacher, students, paths, self.settings)
        path = scorer.weights_path(positions[0]).replace(".safetensors", ".checkpoint.safetensors")
        identity = {"weights": scorer.weights_id, "space": self.space.space_id, "positions": list(positions)}
        begun = copy.deepcopy(students.blocks.state_dict())
        checkpoint = Checkpoint(
            store=self.store,
            path=path,
            run_id=content_id({**identity, "seed": scorer.setting.seed}),
            every_s=CHECKPOINT_EVERY_S,
        )
        try:
            result = train(
                students,
                self.settings.recipe.model_copy(update=NOT_OF_ALL),
                self.data,
                self.workload,
                seed=evaluation_seed(scorer.setting.seed, "distil"),
                device=self.device,
                checkpoint=checkpoint,
                on_step=on_step,
                backward=distiller,
                before_update=distiller.clip,
            )
        except TrainingDiverged as error:
            advice = "Try a lower `scorer.recipe.lr`."
            raise TrainingDiverged("alternatives " + error.where, error.found, error.expected, advice) from None
        log.info("distil %s: %d steps in %.1f s", scorer.scorer_id, result.steps, result.wall_s)
        for path in students.restore(begun):
            log.warning("alternative %s learned no finite numbers: it stays as it was cut and fitted", path)
        checkpoint.remove()

    # rating

    @cached_property
    def assembled(self) -> Assembled:
        """The model with every stored alternative in it."""
        rows = []
        for position, candidates in enumerate(self.family.structure.candidates):
            weights = stored_weights(self.store, self.scorer.weights_path(position))
            blocks = nn.ModuleList(with_fresh_weights(candidate.structure) for candidate in candidates)
            rows.append(fill(blocks, weights))
        network = copy.deepcopy(self.family.teacher)
        paths = [place.path for place in self.places]
        made = Assembled(network, paths, [list(cast(nn.ModuleList, row)) for row in rows])
        return made.to(self.device).requires_grad_(False).eval()

    @cached_property
    def fixed(self) -> Fixed:
        """Calibration and validation batches on the device."""
        inputs = self.data.train[0][: self.settings.calibration_examples]
        size = -(-len(inputs) // -(-len(inputs) // _fewer(CALIBRATION_BATCH, inputs)))
        return Fixed(calibration=self._batches(inputs, size), rated=self._rated)

    @cached_property
    def _rated(self) -> PreparedBatches:
        inputs = self.data.validation[0]
        return self._batches(inputs, evaluated_batch(self.settings.eval_batch_size, inputs.shape[1:], self.device))

    def _batches(self, inputs: torch.Tensor | Examples, size: int) -> PreparedBatches:
        most_bytes = PREPARED_SHARE * self.settings.memory_gb * 1e9
        return PreparedBatches(inputs, size, prepare=self.data.prepare, device=self.device, most_bytes=most_bytes)

    @cached_property
    def _step(self) -> int:
        """Of large maps not every pixel is rated by loss: whole ones of a split would fill the memory."""
        return 1 if self.settings.rated_by == "metric" else map_step(self.workload.sample, len(self.data.validation[0]))

    @cached_property
    def _targets(self) -> torch.Tensor:
        batches = batches_of(self.data.validation[1], self._rated.size)
        return torch.cat([thinned(batch, self._step) for batch in batches]).to(self.device)

    @cached_property
    def _taught(self) -> torch.Tensor:
        """The model's own outputs for the validation examples."""
        return self._outputs_of(self.teacher)

    def _outputs_of(self, network: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([self._kept(index, network(batch)) for index, batch in enumerate(self._rated)])

    def _kept(self, index: int, outputs: torch.Tensor) -> torch.Tensor:
        """What a rating needs of the outputs for a batch."""
        if self.settings.rated_by == "metric":
            start = index * self._rated.size
            return self.workload.reduced(outputs, self._targets[start : start + self._rated.size])
        return thinned(outputs, self._step)

    def rate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """Rows of the genotypes; each one's seconds are its share of the pass it was part of."""
        assembled, targets = self.assembled, self._targets
        began = time.perf_counter()
        outcomes: dict[Genotype, float | Exception] = {}
        for genotype in sorted(set(genotypes)):
            try:
                outputs = self._outputs(self.space.check(genotype))
                outcomes[genotype] = self._value(outputs, targets)
            except Exception as error:  # one network's failure is that network's row
                assembled.forget()
                outcomes[genotype] = error
        assembled.forget()
        wall_s = (time.perf_counter() - began) / max(1, len(genotypes))
        return [self.scorer.rows.of(genotype, outcomes[genotype], len(targets), wall_s) for genotype in genotypes]

    def _outputs(self, genotype: Genotype) -> torch.Tensor:
        """The network's outputs for the validation examples, after its recovery where it gets one."""
        if self.settings.recovery_steps:
            return self._outputs_of(self.recovered(genotype, self.settings.recovery_steps))
        if not any(genotype.choices):
            return self._taught  # the model itself, with the statistics that it has
        if self.scorer.reconstructs:
            return self._outputs_of(self._whole(self._begun(genotype), genotype))
        return self.assembled.outputs(genotype, self.fixed, self._kept)

    def _whole(self, weights: Mapping[str, torch.Tensor], genotype: Genotype) -> nn.Module:
        """The genotype's network with these weights, on the device, in eval mode."""
        network = self.family.module(genotype)
        network.load_state_dict(weights)
        return network.to(self.device).eval()

    def recovered(self, genotype: Genotype, steps: int) -> nn.Module:
        """The network after so many steps of distillation from the model's outputs, in eval mode."""
        network = self._whole(self._begun(genotype), genotype)
        recipe = self.settings.recipe
        epochs = steps / Schedule.of(recipe, len(self.data.train[1])).steps_per_epoch
        features = 0.0 if recipe.compile else RECOVERY_FEATURES  # compiled, no block is seen by itself
        taught = TeacherConfig(model=OWN, weight=1.0, temperature=RECOVERY_TEMPERATURE, features=features)
        train(
            network,
            recipe.model_copy(update={"epochs": epochs, "teacher": taught}),
            self.data,
            self.workload,
            seed=evaluation_seed(self.scorer.setting.seed, "recover"),
            device=self.device,
            own_teacher=OwnModel(network=lambda: self.teacher, places=self.family.teacher_places),
        )
        return network

    def _value(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        if self.settings.rated_by == "loss":
            return self._loss(outputs, targets)
        if self.settings.rated_by == "divergence":
            return float(self.workload.agreement(outputs, self._taught, 1.0))
        return value_of(metric_of(self.workload, self.scorer.setting.metric), outputs, targets)

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """How sure a network is says little of how good it is before it is trained: of logits, that is set right."""
        if not self.workload.gives_logits:
            return float(self.workload.loss(outputs, targets))
        return calibrated_loss(outputs, lambda scaled: self.workload.loss(scaled, targets))

    def start(self, genotype: Genotype) -> dict[str, torch.Tensor]:
        """Weights of the genotype's network by the names that it has in the family's ``module``, on the CPU."""
        weights = self._begun(genotype)
        self.assembled.forget()
        return weights

    def _begun(self, genotype: Genotype) -> dict[str, torch.Tensor]:
        """As ``start``; what the blocks of its beginning gave is kept for the next network."""
        weights = self._recalibrated(genotype)
        if not self.scorer.reconstructs or not any(genotype.choices):
            return weights
        network = self._whole(weights, genotype)
        self._reconstruction.fit(network)
        return {name: value.cpu() for name, value in network.state_dict().items()}

    @cached_property
    def _reconstruction(self) -> Reconstruction:
        blocks = self.family.teacher_places
        held = 4.0 * sum(place.rows * math.prod(place.out_shape) for place in self.places)  # bytes of what blocks give
        most = max(FEWEST, int(PREPARED_SHARE * self.settings.memory_gb * 1e9 / held))
        inputs = self._prepared(min(most, self.settings.samples)).to(self.device)
        return Reconstruction(self.teacher, blocks, inputs)

    def _recalibrated(self, genotype: Genotype) -> dict[str, torch.Tensor]:
        """Its weights as they were made, for statistics of what really comes in."""
        if not any(genotype.choices):
            return self.family.teacher.state_dict()
        self.assembled.outputs(self.space.check(genotype), Fixed(calibration=self.fixed.calibration, rated=[]))
        return self.assembled.weights(genotype)


class Students(nn.Module):
    """The alternatives in training, by position; ``lowest`` and ``waited`` say which of them are done."""

    smooth: torch.Tensor
    lowest: torch.Tensor
    waited: torch.Tensor

    def __init__(self, blocks: dict[int, nn.ModuleList]) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({str(position): row for position, row in blocks.items()})
        most = max(len(row) for row in blocks.values())
        for name, value in (("smooth", 0.0), ("lowest", float("inf")), ("waited", 0.0)):
            self.register_buffer(name, torch.full((len(blocks), max(1, most)), value))

    def of(self, position: int) -> nn.ModuleList:
        return cast(nn.ModuleList, self.blocks[str(position)])

    def restore(self, begun: Mapping[str, torch.Tensor]) -> list[str]:
        """Give alternatives whose weights are no finite numbers those that all began with; returns position.number."""
        lost = []
        for path, block in self.blocks.named_modules():
            if path.count(".") == 1 and not all(map(_is_finite, block.state_dict().values())):
                block.load_state_dict({name: begun[f"{path}.{name}"] for name in block.state_dict()})
                lost.append(path)
        return lost

    def train(self, mode: bool = True) -> "Students":
        """Normalisation in training mode, the rest is not: nothing is dropped at random, as the model drops nothing."""
        super().train(False)
        for norm in norms_of(self):
            norm.train(mode)
        return self


class Distiller:
    """The backward pass of all alternatives: the model runs once, and each learns what its block gives.

    The loss is relative, so that positions and alternatives count alike. One whose loss is no finite number
    learns nothing of that step, and the others are none the worse for it.
    """

    def __init__(self, teacher: nn.Module, students: Students, paths: dict[int, str], settings: Any) -> None:
        self.students, self.paths = students, paths
        self.recipe, self.patience = settings.recipe, settings.patience
        layout = layout_of(students, self.recipe, next(teacher.parameters()).device)
        # of its own: networks are rated beside the other in whatever order the model's weights came
        self.teacher = copy.deepcopy(teacher).to(memory_format=layout)  # type: ignore[call-overload]
        self.noted = -1  # the step of which losses were noted last
        self.learning = {
            position: [
                (column, block, list(block.parameters()))
                for column, block in enumerate(students.of(position))
                if _learns(block)
            ]
            for position in paths
        }

    def __call__(self, inputs: torch.Tensor, loss_of: LossOf, step: int, weight: float | torch.Tensor) -> torch.Tensor:
        precision = partial(autocast, inputs.device, self.recipe)
        with precision():
            seen = observed(self.teacher, self.paths.values(), inputs)
        _check_called(self.paths.values(), seen)
        is_done, losses = self._done(), dict[tuple[int, int], torch.Tensor]()
        for row, (position, path) in enumerate(self.paths.items()):
            call, target = seen.pop(path)
            target = target.float()
            unit = spread(target)  # once for all alternatives of a position
            for column, block, parameters in self.learning[position]:
                if not is_done[row][column]:
                    with precision():
                        output = call.run(block)
                    loss = squared_error(output.float(), target) / unit
                    torch.autograd.backward(loss * weight)
                    losses[row, column] = loss.detach()
                    _forget_gradients(parameters, ~losses[row, column].isfinite())
        if not losses:
            return inputs.new_zeros(())
        values = torch.stack(list(losses.values()))
        self._note(list(losses), values, step)
        return values.where(values.isfinite(), torch.nan).nanmean()

    def clip(self, _step: int) -> None:
        """Clip the gradients of each alternative alone."""
        for row in self.learning.values():
            for _, _, parameters in row:
                clip_gradients(parameters, self.recipe)

    def _done(self) -> list[list[bool]]:
        """Of each position, which alternatives learn no more; told once a step, as it waits for the device."""
        waited = self.students.waited
        if not self.patience:
            return [[False] * waited.shape[1]] * len(waited)
        return [[each >= self.patience for each in row] for row in waited.tolist()]

    def _note(self, places: Sequence[tuple[int, int]], losses_P: torch.Tensor, step: int) -> None:
        """Follow the losses of the P alternatives at these places; of a step that is run in parts, the first part's."""
        if not self.patience or self.noted == step:
            return
        self.noted = step
        smooth, lowest, waited = self.students.smooth, self.students.lowest, self.students.waited
        rows, columns = torch.tensor(places, device=smooth.device).T
        before_P, is_first_P = smooth[rows, columns], lowest[rows, columns].isinf()
        smooth_P = torch.where(is_first_P, losses_P, SMOOTHING * before_P + (1 - SMOOTHING) * losses_P)
        smooth_P = torch.where(losses_P.isfinite(), smooth_P, before_P)  # of what is no number nothing is learned
        is_better_P = losses_P.isfinite() & (smooth_P < BETTER * lowest[rows, columns])
        smooth[rows, columns] = smooth_P
        waited[rows, columns] = torch.where(is_better_P, 0, waited[rows, columns] + 1)
        lowest[rows, columns] = torch.where(is_better_P, smooth_P, lowest[rows, columns])
