"""What a training minimises: the workload's loss or the recipe's, and agreement with a teacher, block by block too."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nas_core.base.errors import NasError
from nas_core.families import timm_compat  # noqa: F401 (before timm: makes torchvision importable)
from nas_core.training.features import Features
from nas_core.training.settings import Recipe
from nas_core.workloads.workload import Workload

from timm.loss import BinaryCrossEntropy  # isort: skip

LossOf = Callable[[torch.Tensor], torch.Tensor]  # of a network's outputs, for given targets
Teacher = Callable[[torch.Tensor], torch.Tensor]  # outputs of prepared inputs, without gradients


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of outputs, for targets as they are stored or as shares of the classes."""

    workload: Workload
    recipe: Recipe
    teacher: Teacher | None = None
    features: Features | None = None

    def of(self, inputs: torch.Tensor, targets: torch.Tensor, weight: float | torch.Tensor = 1.0) -> LossOf:
        """The loss of what a network makes of these inputs; the teacher is asked here, once.

        ``weight`` is by how much more of the targets count than of as many examples of the batch that they are part of.
        """
        taught = None if self.teacher is None else self.teacher(inputs)

        def loss_of(outputs: torch.Tensor) -> torch.Tensor:
            loss = weight * self._of_labels(outputs, targets)
            return loss if taught is None else self._taught(loss, outputs, taught)

        return loss_of

    def _of_labels(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        recipe = self.recipe
        if recipe.loss == "bce":
            if outputs.ndim != 2 or (targets.is_floating_point() and targets.shape != outputs.shape):
                raise NasError("recipe.loss", "bce for outputs that are no classes", "workload for these data")
            loss: torch.Tensor = BinaryCrossEntropy(recipe.label_smoothing, recipe.target_threshold)(outputs, targets)
            return loss
        smoothing = 0.0 if recipe.mixes else recipe.label_smoothing  # mixed targets are smooth already
        return self.workload.loss(outputs, targets, smoothing)

    def _taught(self, loss: torch.Tensor, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        settings = self.recipe.teacher
        assert settings is not None
        if taught.shape != outputs.shape:
            found = f"outputs of {' x '.join(map(str, taught.shape[1:]))}"
            raise NasError("recipe.teacher", found, f"{' x '.join(map(str, outputs.shape[1:]))}, as the student has")
        agreement = self.workload.agreement(outputs, taught, settings.temperature)
        total = (1 - settings.weight) * loss + settings.weight * agreement
        return total if self.features is None else total + settings.features * self.features.error().to(total.device)
