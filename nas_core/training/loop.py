"""The training loop: a recipe on device-resident inputs, one pass an epoch.

It knows a workload (a loss, augmentations) and its splits, not what the
inputs are. Fast where it matters: inputs stay on the device as they are stored
(images as uint8) and are prepared and augmented there a batch at a time,
images are channels-last, nothing waits for the device inside an epoch (losses
are summed there and read once).

Randomness is drawn from generators seeded by (seed, epoch) and (seed, step),
rates follow from the step and the epochs' rows, so a run that resumes at any
step draws what the unbroken run would have drawn, and a checkpoint needs no
generator states.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import torch
from torch import nn

from nas_core.base.allocator import give_back_memory, keep_freed_memory
from nas_core.base.errors import NasError
from nas_core.base.identity import evaluation_seed
from nas_core.base.machine import cpu_name
from nas_core.base.words import counted
from nas_core.families.batch_norm import norms_of
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.features import Features
from nas_core.training.group import ALONE, Group
from nas_core.training.layout import laid_out, layout_of
from nas_core.training.objective import LossOf, Objective
from nas_core.training.optimizers import Monitor, Rates, Row, Schedule, clip_gradients, make_optimizer, rate_factor
from nas_core.training.settings import Recipe
from nas_core.training.state import frozen, lay_out, thawed
from nas_core.training.stochastic import Draws, Mixing, drop_paths, dropout
from nas_core.training.synchronised import SynchronisedNorm
from nas_core.training.teacher import OwnModel, load_teacher
from nas_core.workloads.examples import Examples, batches_of, expect, placed
from nas_core.workloads.metrics import Metric, Metrics
from nas_core.workloads.normalisation import Normalisation, as_bytes
from nas_core.workloads.part_draws import PartGenerator
from nas_core.workloads.workload import Splits, Workload

from timm.utils import ModelEmaV3  # isort: skip

log = logging.getLogger(__name__)

Pair = tuple[torch.Tensor | Examples, torch.Tensor | Examples]  # inputs as they are stored, and targets
Validate = Callable[[nn.Module], Mapping[str, float]]
EVAL_BATCH = 256  # on two CPU cores larger batches leave the cache, smaller ones pay per call
EVALUATED_VALUES = EVAL_BATCH * 3 * 64 * 64  # most of a batch on a CPU: of large images fewer fill its memory
PARTS_IF_TOO_LARGE = 2  # a batch that does not fit is split once more
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU had no memory left; torch's CPU allocator says so by a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


class TrainingDiverged(NasError):  # noqa: N818 (what happened, not a mistake)
    """A loss, an output or a metric is no finite number."""


class Backward(Protocol):
    """Runs the network on prepared inputs, leaves gradients, returns the mean loss, detached."""

    def __call__(self, inputs: torch.Tensor, loss_of: LossOf, step: int, weight: float | torch.Tensor) -> torch.Tensor:
        """``loss_of`` is the loss of a network's outputs for these inputs; ``weight`` scales the gradients."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training did: one row per epoch, seconds (with those before an interruption), optimizer steps.

    ``parts`` is the number of parts that batches were run in; ``was_split``
    says that the recipe's did not fit into memory. ``examples_per_s`` is of the
    steps and the checkpoints between them, without validation.
    """

    history: tuple[Row, ...]
    wall_s: float
    steps: int
    parts: int
    was_split: bool
    examples_per_s: float


def resolve_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a row says of the device: the GPU's model, or the CPU's with the threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {counted(torch.get_num_threads(), 'thread')}"


def train(
    network: nn.Module,
    recipe: Recipe,
    splits: Splits,
    workload: Workload,
    *,
    seed: int,
    device: str | torch.device = "auto",
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    validate: Validate | None = None,
    monitor: Monitor | None = None,
    backward: Backward | None = None,
    before_update: Callable[[int], None] | None = None,
    own_teacher: OwnModel | None = None,
    group: Group = ALONE,
    sync_norm: bool = False,
) -> TrainingResult:
    """Train ``network`` in place on ``splits.train``; it ends on ``device``, in eval mode, with EMA weights if any.

    With ``stop_after_epochs`` it ends with the weights of the epoch that ``monitor`` tells to be the best.

    ``backward`` replaces the plain forward and backward pass (a supernet runs
    several paths), and ``before_update`` hears the step when its gradients are
    complete, before they are clipped. ``validate`` is asked at the end of each epoch for
    numbers that the epoch's row shall hold beside its loss; ``monitor`` is the one that
    tells a plateau and when to stop early (None: the loss).
    ``own_teacher`` is the model that a recipe's teacher ``own`` means.
    ``on_step`` hears (steps done, steps in all) on the host, which may be ahead
    of the device.

    ``group`` are the processes that train together, each of which calls this
    alike. Batches and rates are the whole group's, and each process runs its
    share of a batch; with ``sync_norm`` batch normalisation is over whole
    batches, too. Only the leader saves checkpoints and calls ``on_epoch`` and
    ``on_step``; all call ``validate``, and the leader's answer counts. Any
    number of processes goes on from a checkpoint.

    Raises:
        TrainingDiverged: at the end of an epoch whose loss is no finite number.
        NasError: for a recipe that does not fit the network or the data.
    """
    place = resolve_device(str(device))
    training = _Training(
        network,
        recipe,
        splits,
        workload,
        seed,
        place,
        monitor or Monitor(),
        backward,
        before_update,
        own_teacher,
        group,
        sync_norm and group.size > 1,
    )
    return training.run(checkpoint, on_epoch, on_step, validate)


class _Training:
    """The state of one training: network, optimizer, average, and where it is."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        splits: Splits,
        workload: Workload,
        seed: int,
        device: torch.device,
        monitor: Monitor,
        backward: Backward | None,
        before_update: Callable[[int], None] | None,
        own_teacher: OwnModel | None,
        group: Group,
        sync_norm: bool,
    ) -> None:
        self.recipe, self.seed, self.device, self.monitor = recipe, seed, device, monitor
        self.group, self.sync_norm = group, sync_norm
        self.workload, self.prepare = workload, splits.prepare
        inputs, targets = splits.train
        self.schedule = Schedule.of(recipe, len(targets))
        group.check(self.schedule.batch_size, alike=sync_norm and recipe.accumulate > 1)
        self.rows = group.rows(self.schedule.batch_size).to(device)
        self.inputs, self.targets = placed(inputs, device), placed(targets, device)
        if recipe.drop_path:
            drop_paths(network, recipe.drop_path)
        self.layout = layout_of(network, recipe, device)
        self.network: nn.Module = network.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.average = average_of(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        rate = recipe.lr * rate_factor(recipe, self.schedule.batch_size)
        self.optimizer = make_optimizer(self.network, recipe, rate)
        self.rates = Rates(self.optimizer, recipe, self.schedule, monitor)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.draws, self.mixing = Draws(seed, device, group.rank), Mixing(recipe, workload.sample.num_outputs, device)
        teacher, self.features = None, None
        if recipe.teacher is not None:
            teacher = load_teacher(
                recipe.teacher, workload.sample.num_outputs, inputs.shape[1:], splits.prepare, device, own_teacher
            )
            if recipe.teacher.features and own_teacher is not None:
                self.features = Features(self.network, own_teacher.network(), own_teacher.places)
        self.objective = Objective(workload=workload, recipe=recipe, teacher=teacher, features=self.features)
        self.forward: nn.Module = torch.compile(self.network) if recipe.compile else self.network  # type: ignore[assignment]
        self.backward, self.before_update = backward or self._plain_backward, before_update
        self.loss_sum = torch.zeros((), device=device)
        self.step, self.parts = 0, recipe.accumulate
        self.wall_s, self.step_s, self.epoch_began = 0.0, 0.0, 0.0  # step_s is of the epochs that ended
        self.history: list[Row] = []
        self.best: dict[str, torch.Tensor] = {}  # the weights of the best epoch, where they are what is kept

    def run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[Row], None] | None,
        on_step: Callable[[int, int], None] | None,
        validate: Validate | None,
    ) -> TrainingResult:
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            self._restore(*saved)
        self._agree()
        with ExitStack() as meanwhile:
            keep_freed_memory()
            meanwhile.callback(give_back_memory)
            meanwhile.callback(expect, self.inputs, [])  # nothing more, also where it ends early
            meanwhile.enter_context(self.draws.lent())
            meanwhile.enter_context(dropout(self.network, self.recipe.dropout))
            if self.features is not None:
                self.features.watch(meanwhile)
            if self.sync_norm:
                meanwhile.enter_context(SynchronisedNorm(self.group))
            return self._run(checkpoint, on_epoch, on_step, validate)

    def _run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[Row], None] | None,
        on_step: Callable[[int, int], None] | None,
        validate: Validate | None,
    ) -> TrainingResult:
        began, saved_at = time.perf_counter() - self.wall_s, time.perf_counter()
        order, self.epoch_began = self._order(), time.perf_counter()
        self.network.train()
        while self.step < self.schedule.num_steps and not self._gave_up():
            self._one_step(order)
            self.step += 1
            self.wall_s = time.perf_counter() - began
            if on_step is not None and self.group.leads:
                on_step(self.step, self.schedule.num_steps)
            if self.schedule.ends_epoch(self.step - 1):
                loss = float(self.loss_sum)  # waits for the device
                self.step_s += time.perf_counter() - self.epoch_began
                self._end_epoch(loss, on_epoch, validate)
                order, self.epoch_began = self._order(), time.perf_counter()
            if checkpoint is not None and self.group.leads and time.perf_counter() - saved_at >= checkpoint.every_s:
                checkpoint.save(*self._state())
                saved_at = time.perf_counter()
        if self.best:
            self.network.load_state_dict(self.best)
        elif self.average is not None:
            self.network.load_state_dict(self.average.module.state_dict())
        self.network.eval()
        num_examples = self.step * self.schedule.batch_size
        return TrainingResult(
            history=tuple(self.history),
            wall_s=time.perf_counter() - began,
            steps=self.step,
            parts=self.parts,
            was_split=self.parts > self.recipe.accumulate,
            examples_per_s=num_examples / self.step_s if self.step_s else 0.0,
        )

    def _gave_up(self) -> bool:
        """Whether so many epochs brought no improvement that the recipe stops."""
        patience, at_start = self.recipe.stop_after_epochs, self.step % self.schedule.steps_per_epoch == 0
        return patience is not None and at_start and self.monitor.epochs_since_best(self.history) >= patience

    # one step

    def _order(self) -> torch.Tensor:
        """This epoch's permutation of the examples; with repeats, of a part of them, each as often in a row."""
        generator = self._generator(f"epoch {self.step // self.schedule.steps_per_epoch}")
        order = torch.randperm(len(self.targets), generator=generator, device=self.device)
        if self.recipe.repeats > 1:
            order = order.repeat_interleave(self.recipe.repeats)[: len(order)]
        for examples in (self.inputs, self.targets):
            expect(examples, self._batches(order))
        return order

    def _batches(self, order: torch.Tensor) -> list[torch.Tensor]:
        """What is still to come of this epoch: this process's rows of each batch."""
        size, done = self.schedule.batch_size, self.step % self.schedule.steps_per_epoch
        left = min(self.schedule.steps_per_epoch - done, self.schedule.num_steps - self.step)
        batches = torch.split(order[done * size : (done + left) * size], size) if left else ()
        return [self._own(batch) for batch in batches]

    def _own(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's share."""
        return batch[self.rows] if self.group.size > 1 else batch

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(evaluation_seed(self.seed, purpose))

    def _one_step(self, order: torch.Tensor) -> None:
        self.rates.set(self.step, self.history)
        self.draws.start(self.step)
        start = self.step % self.schedule.steps_per_epoch * self.schedule.batch_size
        loss = self._gradients(*self._batch(self._own(order[start : start + self.schedule.batch_size])))
        self._add_up(loss)
        self.loss_sum += loss
        if self.scaler.is_enabled() and all(each.grad is None for each in self.parameters):
            return  # nothing learns any more, which the scaler takes for a mistake
        self.scaler.unscale_(self.optimizer)
        if self.before_update is not None:
            self.before_update(self.step)
        clip_gradients(self.parameters, self.recipe)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, step=self.step + 2)  # its first two updates would be copies

    def _batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepared and augmented inputs, and their targets."""
        stored = self.inputs[index]
        batch, targets = self.workload.augment_both(
            self.prepare(stored), self.targets[index], self.recipe.augment, self._augments()
        )
        if self.recipe.policy != "none":
            batch = self._operated(batch, stored.dtype)
        batch, targets = self.mixing(batch, targets)
        return laid_out(batch, self.layout), targets

    def _operated(self, batch: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
        """Changed by the recipe's policy, which works on inputs as they are stored."""
        inputs = self.prepare.undone(batch)
        if stored == torch.uint8:
            inputs = as_bytes(inputs)
        recipe = self.recipe
        return self.prepare(self.workload.augment_stored(inputs, recipe.policy, recipe.magnitude, self.prepare.mean))

    def _augments(self) -> torch.Generator:
        """What this step's augmentation draws from."""
        purpose, group = f"step {self.step}", self.group
        if group.size == 1:
            return self._generator(purpose)
        seed, own = (evaluation_seed(self.seed, text) for text in (purpose, f"{purpose} of {group.rank}"))
        return PartGenerator.of(self.device, self.schedule.batch_size, self.rows, seed, own)

    def _add_up(self, loss: torch.Tensor) -> None:
        """Gradients and loss of the whole batch from the processes' shares of them; the mean of running statistics."""
        if self.group.size == 1:
            return
        statistics = [each for norm in norms_of(self.network) for each in (norm.running_mean, norm.running_var)]
        known = [each for each in statistics if each is not None]
        if known:
            torch._foreach_mul_(known, len(self.rows) / self.schedule.batch_size)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.group.add_up([loss, *known, *gradients])

    def _agree(self) -> None:
        """All go on from one step: a store may be slow to show all what the last of many checkpoints is."""
        if self.group.size == 1:
            return
        steps = torch.tensor([self.step, self.step**2], dtype=torch.float64, device=self.device)
        self.group.add_up([steps])
        if float(steps[1]) * self.group.size != float(steps[0]) ** 2:
            raise RuntimeError(f"step {self.step} in process {self.group.rank}, another one in others")

    def _gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients of the batch, in twice as many parts from the first time on that it does not fit into memory.

        The learning rate stays: the gradient is the mean over the same examples.
        Only normalisation sees smaller batches, which ``TrainingResult.was_split`` records.
        """
        more = PARTS_IF_TOO_LARGE * self.recipe.accumulate
        try:
            return self._accumulate(inputs, targets)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.parts == more or len(targets) < more or self.sync_norm:
                raise  # parts of whose statistics others wait for cannot be run once more
        # Outside the handler: the exception holds the frames, and they the memory.
        log.warning("batch of %d does not fit into memory: run as %d parts", len(targets), more)
        self.parts = more
        return self._accumulate(inputs, targets)

    def _accumulate(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        counted = self._counted(targets)
        for some_inputs, some_targets in zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True):
            share = len(some_targets) / self.schedule.batch_size
            loss_of = self.objective.of(some_inputs, some_targets, self._weight(some_targets, share, counted))
            total += share * self.backward(some_inputs, loss_of, self.step, self._scaled(share))
        return total

    def _counted(self, targets: torch.Tensor) -> torch.Tensor | None:
        """How many values the whole batch's mean loss is over, where that tells its parts apart."""
        counted = self.workload.counted(targets) if self.parts > 1 or self.group.size > 1 else None
        if counted is None:
            return None
        whole = counted.double()
        self.group.add_up([whole])
        return whole.clamp_min(1)

    def _weight(self, targets: torch.Tensor, share: float, whole: torch.Tensor | None) -> float | torch.Tensor:
        """By how much more of these targets count than of as many examples of the batch; ``whole`` of it do."""
        if whole is None:
            return 1.0
        counted = self.workload.counted(targets)
        assert counted is not None, "of the whole batch there was a number"
        return (counted / (share * whole)).float()

    def _scaled(self, share: float) -> float | torch.Tensor:
        """The share times the scaler's factor, which stays on the device."""
        if not self.scaler.is_enabled():
            return share
        weight: torch.Tensor = self.scaler.scale(torch.tensor(share, device=self.device))
        return weight

    def _plain_backward(
        self, inputs: torch.Tensor, loss_of: LossOf, step: int, weight: float | torch.Tensor
    ) -> torch.Tensor:
        return loss_and_backward(self.forward, inputs, loss_of, self.recipe, weight)

    # the end of an epoch

    def _end_epoch(self, loss_sum: float, on_epoch: Callable[[Row], None] | None, validate: Validate | None) -> None:
        steps = (self.step - 1) % self.schedule.steps_per_epoch + 1
        loss = loss_sum / steps
        self.loss_sum.zero_()
        epoch = len(self.history) + 1
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"epoch {epoch} of training", f"loss {loss}", "a finite loss", "Try a lower `recipe.lr`."
            )
        row: Row = {"epoch": epoch, "step": self.step, "lr": self.rates.current, "loss": loss}
        if validate is not None:
            row |= self.group.told(dict(validate(self._handed_over().eval())))
            self.network.train()
        self.history.append(row)
        if self.recipe.stop_after_epochs is not None and self.monitor.is_best(self.history):
            weights = self._handed_over().state_dict()
            self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        if on_epoch is not None and self.group.leads:
            on_epoch({**row, "epochs": self.schedule.num_epochs})

    def _handed_over(self) -> nn.Module:
        """The network as it would be handed over now: that of the averaged weights, if there are any."""
        network: nn.Module = self.network if self.average is None else self.average.module
        return network

    # state

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.module.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors["loss_sum"] = self.loss_sum
        return tensors, {
            "step": self.step,
            "parts": self.parts,
            "wall_s": self.wall_s,
            "step_s": self.step_s + time.perf_counter() - self.epoch_began,
            "history": self.history,
            "optimizer": frozen(self.optimizer.state_dict(), tensors, "optimizer"),
            "scaler": self.scaler.state_dict(),
        }

    def _restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        self.step, self.parts = state["step"], state["parts"]
        self.wall_s, self.step_s = state["wall_s"], state["step_s"]
        self.history = list(state["history"])
        self.network.load_state_dict(_part(tensors, "network."))
        if self.average is not None:
            self.average.module.load_state_dict(_part(tensors, "average."))
        self.best = {name: tensor.to(self.device) for name, tensor in _part(tensors, "best.").items()}
        self.optimizer.load_state_dict(thawed(state["optimizer"], tensors))
        lay_out(self.optimizer)
        self.scaler.load_state_dict(state["scaler"])
        self.loss_sum.copy_(tensors["loss_sum"])
        log.info("training resumes at step %d of %d", self.step, self.schedule.num_steps)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def average_of(network: nn.Module, decay: float) -> ModelEmaV3:
    """timm's moving average of a network's weights and statistics.

    The decay starts low (``(1 + step) / (10 + step)``) so that short trainings
    are not held back by their first weights.
    """
    return ModelEmaV3(network, decay=decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)


def autocast(device: torch.device, recipe: Recipe) -> torch.autocast:
    """The recipe's precision; ``auto`` is bfloat16 on a GPU."""
    chosen = recipe.precision
    if chosen == "auto":
        chosen = "bfloat16" if device.type == "cuda" else "float32"
    return torch.autocast(device.type, dtype=PRECISIONS[chosen], enabled=chosen != "float32")


def loss_and_backward(
    forward: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    loss_of: LossOf,
    recipe: Recipe,
    weight: float | torch.Tensor,
) -> torch.Tensor:
    """Mean loss of the inputs, detached, with ``weight`` times its gradients added to the parameters'."""
    with autocast(inputs.device, recipe):
        outputs = forward(inputs)
    loss = loss_of(outputs.float())
    (loss * weight).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def evaluated_batch(most: int, shape: Sequence[int], device: torch.device) -> int:
    """Examples of one forward pass: as many as asked for, on a CPU fewer of large images."""
    return min(most, max(1, EVALUATED_VALUES // math.prod(shape))) if device.type == "cpu" else most


def outputs_of(
    network: nn.Module,
    inputs: "torch.Tensor | Examples",
    prepare: Normalisation,
    *,
    batch_size: int = EVAL_BATCH,
    device: str | torch.device = "auto",
    reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    targets: torch.Tensor | Examples | None = None,
    group: Group = ALONE,
) -> torch.Tensor:
    """What the network makes of stored inputs in eval mode, in full precision, on the device.

    ``batch_size`` examples at most at a time, on a CPU fewer of large images.
    ``reduce`` makes less of a batch's outputs and ``targets`` (``Workload.reduced``).
    Each process of a ``group`` runs a part of them; each has all outputs.
    """
    keep_freed_memory()
    place = resolve_device(str(device))
    network = network.to(place).eval()
    count = len(inputs)
    group = group if count >= group.size else ALONE
    own = group.span(count)
    batch_size = evaluated_batch(batch_size, inputs.shape[1:], place)
    batches = batches_of(placed(inputs[own], place), batch_size)
    wanted = repeat(None) if targets is None else batches_of(targets[own], batch_size)
    found = list[torch.Tensor]()
    with torch.inference_mode():  # not around the move: weights that it copies have to be trained further
        for batch, its_targets in zip(batches, wanted, strict=False):
            outputs = network(laid_out(prepare(batch.to(place)))).float()
            if reduce is not None and its_targets is not None:
                outputs = reduce(outputs, its_targets.to(place))
            found.append(outputs)
        return group.gathered(torch.cat(found), count)


def measure(
    network: nn.Module,
    metric: Metric,
    pair: Pair,
    prepare: Normalisation,
    *,
    device: str | torch.device = "auto",
    workload: Workload | None = None,
) -> float:
    """The network's metric on a split; raises as ``value_of``."""
    return measure_all(network, {metric.name: metric}, pair, prepare, device=device, workload=workload)[metric.name]


def measure_all(
    network: nn.Module,
    metrics: Metrics,
    pair: Pair,
    prepare: Normalisation,
    *,
    device: str | torch.device = "auto",
    workload: Workload | None = None,
    group: Group = ALONE,
) -> dict[str, float]:
    """Every metric by name, from one pass over a split; raises as ``value_of``.

    A ``workload`` reduces outputs batch by batch, where whole ones would fill the memory.
    """
    reduce = None if workload is None else workload.reduced
    outputs = outputs_of(network, pair[0], prepare, device=device, reduce=reduce, targets=pair[1], group=group)
    return {name: value_of(metric, outputs, pair[1]) for name, metric in metrics.items()}


def value_of(metric: Metric, outputs: torch.Tensor, targets: torch.Tensor | Examples) -> float:
    """The metric of a split's outputs; of those that are reduced the targets are not read.

    Raises:
        TrainingDiverged: if an output, or the metric itself, is no finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrainingDiverged("evaluation", "outputs that are no finite numbers", "finite outputs")
    known: Any = targets.to(outputs.device)
    value = float(metric.of(outputs, known))
    if not math.isfinite(value):
        raise TrainingDiverged("evaluation", f"{metric.name} {value}", "a finite number")
    return value
