"""How stored inputs become what a network takes: brought to mean 0 and deviation 1 per channel or feature.

N = examples, C = channels or features, on the axis after the examples'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FULL_BYTE = 255  # stored bytes are fractions of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """Mean and standard deviation per channel of the training inputs; without any, inputs stay as they are.

    Inputs stored as uint8 are fractions of full brightness, all others are
    taken as they are stored. It is written beside a trained network's weights
    and becomes part of the exported program, so it is plain numbers.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, inputs: "torch.Tensor") -> "torch.Tensor":
        """What a network takes, from stored inputs N C ...; on their device."""
        import torch

        is_bytes = inputs.dtype == torch.uint8
        if not self.mean:
            return inputs.float() / FULL_BYTE if is_bytes else inputs
        scale, shift = _scale_and_shift(self, FULL_BYTE if is_bytes else 1, inputs.ndim, inputs.device)
        return torch.addcmul(shift, inputs.float(), scale)

    def as_dict(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Normalisation":
        return cls(mean=tuple(data["mean"]), std=tuple(data["std"]))

    @classmethod
    def of(cls, inputs: "torch.Tensor") -> "Normalisation":
        """That of the training inputs N C ...; a constant channel of bytes gets deviation 1/255, another one 1."""
        import torch

        full = FULL_BYTE if inputs.dtype == torch.uint8 else 1
        # One channel at a time: a float copy of the whole set would be four times its size.
        values = [inputs[:, channel].float() for channel in range(inputs.shape[1])]
        deviations = [float(v.std()) if v.numel() > 1 else 0.0 for v in values]
        mean = tuple(float(v.mean()) / full for v in values)
        if full == FULL_BYTE:
            return cls(mean=mean, std=tuple(max(std, 1.0) / full for std in deviations))
        return cls(mean=mean, std=tuple(std or 1.0 for std in deviations))


def broadcast(values: "torch.Tensor", ndim: int) -> "torch.Tensor":
    """One value per channel as 1 C 1 ..., for inputs of ``ndim`` axes."""
    return values.view(1, -1, *(1,) * (ndim - 2))


@lru_cache(maxsize=64)
def _scale_and_shift(
    normalisation: Normalisation, full: int, ndim: int, device: "torch.device"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Factor and summand of inputs; kept on the device, since sending them at every step would wait for it."""
    import torch

    with torch.inference_mode(False):  # the first caller may rate networks, the next one train
        std = torch.tensor(normalisation.std, dtype=torch.float64)
        mean = torch.tensor(normalisation.mean, dtype=torch.float64)
        scale, shift = (1 / (full * std)).float(), (-mean / std).float()
        return broadcast(scale, ndim).to(device), broadcast(shift, ndim).to(device)
