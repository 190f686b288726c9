"""What a network's blocks give, beside what the model's give that it was made of.

B = examples, on axis 0.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas_core.training.layout import IMAGE_AXES

LEAST_VARIANCE = 1e-12  # of an output that is the same everywhere


def spread(wanted: torch.Tensor) -> torch.Tensor:
    """Variance of what a block is to give, B x ...; a scalar above 0."""
    return wanted.var(unbiased=False).clamp_min(LEAST_VARIANCE)


def squared_error(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error of B x ..., a scalar, whose gradient lies in memory as what is given does.

    That of torch's ``mse_loss`` has channels first, whatever it is given: an activation's backward pass takes thirty
    times longer with gradients in another order than its output.
    """
    if given.ndim == IMAGE_AXES and given.is_contiguous(memory_format=torch.channels_last):
        given, wanted = (each.permute(0, 2, 3, 1) for each in (given, wanted))
    return F.mse_loss(given, wanted)


def relative_error(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error of B x ... over the spread of what is wanted, so that all blocks count alike; a scalar."""
    if wanted.stride() != given.stride():  # another order in memory, which takes several times longer
        wanted = torch.empty_like(given, requires_grad=False).copy_(wanted)
    return squared_error(given, wanted) / spread(wanted)


class Features:
    """The outputs of a network's blocks, and of those at the same paths of its teacher, in the passes that train it.

    A path that the network does not have, or where it gives another shape, is left out.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module, places: Sequence[str]) -> None:
        own = dict(network.named_modules())
        self.pairs = {path: (own[path], teacher.get_submodule(path)) for path in places if path in own}
        self.given: dict[str, torch.Tensor] = {}
        self.wanted: dict[str, torch.Tensor] = {}

    def watch(self, meanwhile: ExitStack) -> None:
        """Keep what the blocks give until the stack is left."""
        for path, (own, model) in self.pairs.items():
            meanwhile.callback(own.register_forward_hook(self._kept(self.given, path)).remove)
            meanwhile.callback(model.register_forward_hook(self._kept(self.wanted, path)).remove)

    def _kept(self, outputs: dict[str, torch.Tensor], path: str) -> Callable[..., None]:
        is_own = outputs is self.given

        def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            if torch.is_grad_enabled() or not is_own:  # a validation between epochs is no pass that trains
                outputs[path] = output.clone()  # a later layer may work in place

        return keep

    def error(self) -> torch.Tensor:
        """Mean over the blocks of their relative error in the last pass, a scalar; 0 where none can be compared."""
        errors = [
            relative_error(given.float(), self.wanted[path].float())
            for path, given in self.given.items()
            if given.shape == self.wanted[path].shape
        ]
        self.given.clear()
        return torch.stack(errors).mean() if errors else torch.zeros(())
