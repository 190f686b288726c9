"""How stored inputs become what a network takes: brought to mean 0 and deviation 1 per channel or feature.

N = examples, C = channels or features, on the axis after the examples'.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from nas_core.base.errors import DataError

if TYPE_CHECKING:
    import torch

    from nas_core.workloads.settings import Scale

FULL_BYTE = 255  # stored bytes are fractions of it
BATCH = 256  # inputs whose bytes are counted at once


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
        """What a network takes, from stored inputs N C ..., on their device: never the stored ones themselves.

        A network may work in place on what it takes.
        """
        import torch

        is_bytes = inputs.dtype == torch.uint8
        if not self.mean:
            return inputs.float() / FULL_BYTE if is_bytes else inputs.clone()
        scale, shift = _scale_and_shift(self, FULL_BYTE if is_bytes else 1, inputs.ndim, inputs.device)
        return torch.addcmul(shift, inputs.float(), scale)

    def undone(self, values: "torch.Tensor") -> "torch.Tensor":
        """What this was made of, N C ...; values as they are where there is nothing to undo."""
        if not self.mean:
            return values
        mean, std = (broadcast(values.new_tensor(each), values.ndim) for each in (self.mean, self.std))
        return values * std + mean

    def as_dict(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Normalisation":
        return cls(mean=tuple(data["mean"]), std=tuple(data["std"]))

    @classmethod
    def of(cls, inputs: "torch.Tensor") -> "Normalisation":
        """That of the training inputs N C ...; a constant channel of bytes gets deviation 1/255, another one 1."""
        import torch

        if inputs.dtype == torch.uint8:
            return cls.of_bytes(torch.split(inputs, BATCH))
        # One channel at a time: a copy of the whole set would be twice its size.
        mean, std = [], []
        for channel in range(inputs.shape[1]):
            values = inputs[:, channel].double()  # squares of large numbers are none of 32 bits
            mean.append(float(values.mean()))
            std.append((float(values.std()) if values.numel() > 1 else 0.0) or 1.0)
        return cls(mean=tuple(mean), std=tuple(std))

    @classmethod
    def of_bytes(cls, batches: "Iterable[torch.Tensor]") -> "Normalisation":
        """That of uint8 inputs N C ... in batches: exact, whatever their number and how they are divided."""
        import torch

        counts_CV: torch.Tensor | None = None  # V = 256 values of a byte
        for batch in batches:
            channels = batch.transpose(0, 1).reshape(batch.shape[1], -1)
            found = torch.stack([channel.bincount(minlength=FULL_BYTE + 1) for channel in channels])
            counts_CV = found if counts_CV is None else counts_CV + found
        assert counts_CV is not None, "a training split has an example"
        mean, std = [], []
        for counts in counts_CV.tolist():
            number = sum(counts)
            total = sum(count * value for value, count in enumerate(counts))
            squares = sum(count * value**2 for value, count in enumerate(counts))
            variance = (squares - total**2 / number) / max(1, number - 1)
            mean.append(total / number / FULL_BYTE)
            std.append(max(math.sqrt(max(0.0, variance)), 1.0) / FULL_BYTE)
        return cls(mean=tuple(mean), std=tuple(std))


def as_bytes(shares: "torch.Tensor") -> "torch.Tensor":
    """Shares of full brightness as they are stored, rounded."""
    import torch

    return (FULL_BYTE * shares).round().clamp(0, FULL_BYTE).to(torch.uint8)


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


Known = Literal["imagenet", "half", "clip", "none"]
KNOWN: dict[Known, tuple[tuple[float, ...], tuple[float, ...]]] = {  # mean and deviation of the three colours
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def known_normalisation(said: "Known | Scale", channels: int) -> Normalisation:
    """The one that settings say, not by the data: images without three colours get the colours' average everywhere.

    Raises:
        DataError: for numbers of other channels.
    """
    if isinstance(said, str):
        mean, std = (_for(values, channels) for values in KNOWN[said])
        return Normalisation(mean=mean, std=std)
    for name, values in (("mean", said.mean), ("std", said.std)):
        if len(values) != channels:
            raise DataError(f"data.normalise.{name}", f"{len(values)} numbers", f"{channels}, one per channel")
    return Normalisation(mean=said.mean, std=said.std)


def _for(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if channels == len(values) else (sum(values) / len(values),) * channels
