"""The training loop: SGD with Nesterov momentum, cosine schedule with warm-up, one pass over device-resident inputs.

It knows a workload (a loss, an augmentation) and its splits, not what the
inputs are. Fast where it matters: inputs stay on the device as they are stored
(images as uint8) and are prepared and augmented there a batch at a time,
images are channels-last, nothing waits for the device inside an epoch (losses
are summed there and read once).

Randomness is drawn from generators seeded by (seed, epoch) and (seed, step),
so a run that resumes at any step draws what the unbroken run would have drawn,
and a checkpoint needs no generator states.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from nas_core.base.errors import NasError
from nas_core.base.identity import evaluation_seed
from nas_core.base.machine import cpu_name
from nas_core.training.checkpoint import Checkpoint
from nas_core.training.settings import Recipe
from nas_core.workloads.examples import Examples, batches_of, expect, placed
from nas_core.workloads.metrics import Metric, Metrics
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Splits, Workload

log = logging.getLogger(__name__)

Row = dict[str, float]
Pair = tuple[torch.Tensor | Examples, torch.Tensor]  # inputs as they are stored, and targets
Loss = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]  # of outputs, targets, label smoothing
Validate = Callable[[nn.Module], Mapping[str, float]]
EVAL_BATCH = 256  # on two CPU cores larger batches leave the cache, smaller ones pay per call
MAX_PARTS = 2  # a batch that does not fit is split once


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU had no memory left; torch's CPU allocator says so by a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


class TrainingDiverged(NasError):  # noqa: N818 (what happened, not a mistake)
    """A loss, an output or a metric is no finite number."""


class Backward(Protocol):
    """Runs the network on prepared inputs, leaves gradients, returns the mean loss, detached."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, step: int, weight: float) -> torch.Tensor:
        """``weight`` scales the gradients: the share of the step's batch that these inputs are."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a training did: one row per epoch, seconds (with those before an interruption), optimizer steps.

    ``parts`` is 2 if the batch had to be split because it did not fit into memory.
    """

    history: tuple[Row, ...]
    wall_s: float
    steps: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps and learning rates of a recipe on a number of examples."""

    num_steps: int
    steps_per_epoch: int
    batch_size: int
    warmup_steps: int
    peak_lr: float

    @classmethod
    def of(cls, recipe: Recipe, num_examples: int) -> "Schedule":
        """Whole batches only: the rest of an epoch's permutation is left out, another rest each epoch."""
        batch_size = min(recipe.batch_size, num_examples)
        steps_per_epoch = num_examples // batch_size
        num_steps = max(1, round(recipe.epochs * steps_per_epoch))
        return cls(
            num_steps=num_steps,
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            warmup_steps=round(recipe.warmup_fraction * num_steps),
            peak_lr=recipe.lr,
        )

    def lr(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.peak_lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.peak_lr * 0.5 * (1 + math.cos(math.pi * progress))

    def ends_epoch(self, step: int) -> bool:
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.num_steps


def resolve_device(name: str) -> torch.device:
    """``auto`` is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a row says of the device: the GPU's model, or the CPU's with the threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"


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
    backward: Backward | None = None,
    before_update: Callable[[int], None] | None = None,
) -> TrainingResult:
    """Train ``network`` in place on ``splits.train``; it ends on ``device``, in eval mode, with EMA weights if any.

    ``backward`` replaces the plain forward and backward pass (a supernet runs
    several paths), and ``before_update`` hears the step when its gradients are
    complete, before they are clipped. ``validate`` is asked at the end of each epoch for
    numbers that the epoch's row shall hold beside its loss.
    ``on_step`` hears (steps done, steps in all) on the host, which may be ahead
    of the device.

    Raises:
        TrainingDiverged: at the end of an epoch whose loss is no finite number.
    """
    place = resolve_device(str(device))
    training = _Training(network, recipe, splits, workload, seed, place, backward, before_update)
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
        backward: Backward | None,
        before_update: Callable[[int], None] | None,
    ) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.workload, self.prepare = workload, splits.prepare
        inputs, targets = splits.train
        self.schedule = Schedule.of(recipe, len(targets))
        self.inputs, self.targets = placed(inputs, device), targets.to(device)
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.network, recipe)
        self.forward: nn.Module = torch.compile(self.network) if recipe.compile else self.network  # type: ignore[assignment]
        self.backward, self.before_update = backward or self._plain_backward, before_update
        self.loss_sum = torch.zeros((), device=device)
        self.drops_out = any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
        self.step, self.parts, self.wall_s = 0, 1, 0.0
        self.history: list[Row] = []

    def run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[Row], None] | None,
        on_step: Callable[[int, int], None] | None,
        validate: Validate | None,
    ) -> TrainingResult:
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            self._restore(*saved)
        # Dropout can only draw from the global generators: what happens to them stays in here.
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=self.drops_out):
            return self._run(checkpoint, on_epoch, on_step, validate)

    def _run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[Row], None] | None,
        on_step: Callable[[int, int], None] | None,
        validate: Validate | None,
    ) -> TrainingResult:
        began, saved_at = time.perf_counter() - self.wall_s, time.perf_counter()
        order = self._order()
        self.network.train()
        while self.step < self.schedule.num_steps:
            self._one_step(order)
            self.step += 1
            self.wall_s = time.perf_counter() - began
            if on_step is not None:
                on_step(self.step, self.schedule.num_steps)
            if self.schedule.ends_epoch(self.step - 1):
                self._end_epoch(on_epoch, validate)
                order = self._order()
            if checkpoint is not None and time.perf_counter() - saved_at >= checkpoint.every_s:
                checkpoint.save(*self._state())
                saved_at = time.perf_counter()
        if self.average is not None:
            self.average.copy_to(self.network)
        self.network.eval()
        return TrainingResult(
            history=tuple(self.history),
            wall_s=time.perf_counter() - began,
            steps=self.step,
            parts=self.parts,
        )

    # one step

    def _order(self) -> torch.Tensor:
        """This epoch's permutation of the examples."""
        generator = self._generator(f"epoch {self.step // self.schedule.steps_per_epoch}")
        order = torch.randperm(len(self.targets), generator=generator, device=self.device)
        expect(self.inputs, self._batches(order))
        return order

    def _batches(self, order: torch.Tensor) -> list[torch.Tensor]:
        """What is still to come of this epoch."""
        size, done = self.schedule.batch_size, self.step % self.schedule.steps_per_epoch
        left = min(self.schedule.steps_per_epoch - done, self.schedule.num_steps - self.step)
        return list(order[done * size : (done + left) * size].split(size))

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(evaluation_seed(self.seed, purpose))

    def _one_step(self, order: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(self.step)
        if self.drops_out:
            torch.manual_seed(evaluation_seed(self.seed, f"dropout {self.step}"))
        start = self.step % self.schedule.steps_per_epoch * self.schedule.batch_size
        index = order[start : start + self.schedule.batch_size]
        batch = self.prepare(self.inputs[index])
        batch = self.workload.augment(batch, self.recipe.augment, self._generator(f"step {self.step}"))
        self.loss_sum += self._gradients(laid_out(batch), self.targets[index])
        if self.before_update is not None:
            self.before_update(self.step)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm, foreach=True)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.step)

    def _gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradients of the batch, in two halves from the first time on that it does not fit into memory.

        The learning rate stays: the gradient is the mean over the same examples.
        Only normalisation sees half batches, which ``TrainingResult.parts`` records.
        """
        try:
            return self._accumulate(inputs, targets)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.parts == MAX_PARTS or len(targets) < MAX_PARTS:
                raise
        # Outside the handler: the exception holds the frames, and they the memory.
        log.warning("batch of %d does not fit into memory: run as %d parts", len(targets), MAX_PARTS)
        self.parts = MAX_PARTS
        return self._accumulate(inputs, targets)

    def _accumulate(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for some_inputs, some_targets in zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True):
            weight = len(some_targets) / len(targets)
            total += weight * self.backward(some_inputs, some_targets, self.step, weight)
        return total

    def _plain_backward(self, inputs: torch.Tensor, targets: torch.Tensor, step: int, weight: float) -> torch.Tensor:
        return loss_and_backward(self.forward, inputs, targets, self.workload.loss, self.recipe, weight)

    # the end of an epoch

    def _end_epoch(self, on_epoch: Callable[[Row], None] | None, validate: Validate | None) -> None:
        steps = (self.step - 1) % self.schedule.steps_per_epoch + 1
        loss = float(self.loss_sum) / steps
        self.loss_sum.zero_()
        epoch = len(self.history) + 1
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"epoch {epoch} of training", f"loss {loss}", "a finite loss", "Try a lower `recipe.lr`."
            )
        row: Row = {"epoch": epoch, "step": self.step, "lr": self.schedule.lr(self.step - 1), "loss": loss}
        if validate is not None:
            row |= validate(self._validated())
            self.network.train()
        self.history.append(row)
        if on_epoch is not None:
            on_epoch({**row, "epochs": math.ceil(self.schedule.num_steps / self.schedule.steps_per_epoch)})

    def _validated(self) -> nn.Module:
        """The network as it would be handed over now: a copy with the averaged weights, if there are any."""
        if self.average is None:
            self.network.eval()
            return self.network
        network = copy.deepcopy(self.network)
        self.average.copy_to(network)
        network.eval()
        return network

    # state

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{index}"] = buffer
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        tensors["loss_sum"] = self.loss_sum
        return tensors, {"step": self.step, "parts": self.parts, "wall_s": self.wall_s, "history": self.history}

    def _restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        self.step, self.parts, self.wall_s = state["step"], state["parts"], state["wall_s"]
        self.history = list(state["history"])
        self.network.load_state_dict(_part(tensors, "network."))
        for index, momentum in _part(tensors, "momentum.").items():
            parameter = self.parameters[int(index)]
            self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        if self.average is not None:
            for name, tensor in _part(tensors, "average.").items():
                self.average.tensors[name].copy_(tensor)
        self.loss_sum.copy_(tensors["loss_sum"])
        log.info("training resumes at step %d of %d", self.step, self.schedule.num_steps)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Average:
    """Moving average of a network's floating-point weights and statistics; counters are copied.

    The decay starts low (``(1 + step) / (10 + step)``) so that short trainings
    are not held back by their first weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.sources = network.state_dict()  # the network's own tensors, which change in place
        self.tensors = {name: tensor.detach().clone() for name, tensor in self.sources.items()}
        self.floating = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the network it was made for."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        names = self.floating
        torch._foreach_lerp_([self.tensors[n] for n in names], [self.sources[n] for n in names], weight)
        for name in self.tensors.keys() - set(names):
            self.tensors[name].copy_(self.sources[name])

    def copy_to(self, network: nn.Module) -> None:
        network.load_state_dict(self.tensors)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD whose weight decay touches matrices and kernels only: norms and biases have one axis."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        foreach=True,
    )


def autocast(device: torch.device, recipe_amp: bool) -> torch.autocast:
    """bfloat16 on a GPU if the recipe says so, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe_amp and device.type == "cuda")


def laid_out(inputs: torch.Tensor) -> torch.Tensor:
    """Images (four axes) channels-last, anything else contiguous."""
    return inputs.contiguous(memory_format=torch.channels_last if inputs.ndim == 4 else torch.contiguous_format)


def loss_and_backward(
    forward: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss_of: Loss,
    recipe: Recipe,
    weight: float,
) -> torch.Tensor:
    """Mean loss of the inputs, detached, with ``weight`` times its gradients added to the parameters'."""
    with autocast(inputs.device, recipe.amp):
        outputs = forward(inputs)
    loss = loss_of(outputs.float(), targets, recipe.label_smoothing)
    (loss * weight).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def outputs_of(
    network: nn.Module,
    inputs: "torch.Tensor | Examples",
    prepare: Normalisation,
    *,
    batch_size: int = EVAL_BATCH,
    device: str | torch.device = "auto",
) -> torch.Tensor:
    """What the network makes of stored inputs in eval mode, in full precision, on the device."""
    place = resolve_device(str(device))
    network = network.to(place).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    batches = batches_of(placed(inputs, place), batch_size)
    with torch.inference_mode():  # not around the move: weights that it copies have to be trained further
        return torch.cat([network(laid_out(prepare(batch.to(place)))).float() for batch in batches])


def measure(
    network: nn.Module, metric: Metric, pair: Pair, prepare: Normalisation, *, device: str | torch.device = "auto"
) -> float:
    """The network's metric on a split; raises as ``value_of``."""
    return measure_all(network, {metric.name: metric}, pair, prepare, device=device)[metric.name]


def measure_all(
    network: nn.Module, metrics: Metrics, pair: Pair, prepare: Normalisation, *, device: str | torch.device = "auto"
) -> dict[str, float]:
    """Every metric by name, from one pass over a split; raises as ``value_of``."""
    outputs = outputs_of(network, pair[0], prepare, device=device)
    return {name: value_of(metric, outputs, pair[1]) for name, metric in metrics.items()}


def value_of(metric: Metric, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The metric of a split's outputs.

    Raises:
        TrainingDiverged: if an output, or the metric itself, is no finite number.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise TrainingDiverged("evaluation", "outputs that are no finite numbers", "finite outputs")
    value = float(metric.of(outputs, targets.to(outputs.device)))
    if not math.isfinite(value):
        raise TrainingDiverged("evaluation", f"{metric.name} {value}", "a finite number")
    return value
