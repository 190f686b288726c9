"""Trained models that do what few do, and that a user may bring all the same."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from nas_core.testing.example_model import Residual

CHANNELS = 16


class Images(nn.Module):
    """A stem, four blocks, a head; between the blocks ``between`` runs."""

    def __init__(self, in_channels: int, num_outputs: int, between: Any = nn.Identity) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, CHANNELS, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(CHANNELS) for _ in range(4))
        self.between = nn.ModuleList(between() for _ in range(4))
        self.head = nn.Linear(CHANNELS, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block, between in zip(self.blocks, self.between, strict=True):
            x = between(block(x))
        outputs: torch.Tensor = self.head(x.mean((2, 3)))
        return outputs


class Rotated(nn.Module):
    """A block of tokens that is given a table beside them: a pair of tensors, or both in one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 32), nn.Linear(32, CHANNELS)

    def forward(self, x: torch.Tensor, table: Any) -> torch.Tensor:
        y = self.norm(x)
        y = y * table[0] + y.flip(-1) * table[1]
        outputs: torch.Tensor = x + self.down(torch.relu(self.up(y)))
        return outputs


class Tokens(nn.Module):
    """Patches, four blocks with a table of cosines and sines, a head."""

    def __init__(self, in_channels: int, num_outputs: int, *, is_pair: bool) -> None:
        super().__init__()
        self.is_pair = is_pair
        self.patches = nn.Conv2d(in_channels, CHANNELS, 4, 4)
        self.blocks = nn.ModuleList(Rotated() for _ in range(4))
        self.head = nn.Linear(CHANNELS, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        angle = torch.arange(x.shape[1])[:, None] * torch.linspace(0.1, 1, CHANNELS)
        table: Any = (angle.cos(), angle.sin())
        for block in self.blocks:
            x = block(x, table if self.is_pair else torch.stack(table))
        outputs: torch.Tensor = self.head(x.mean(1))
        return outputs


def _made(model: type[nn.Module], *given: Any, **named: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model(*given, **named).eval()


def in_place(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    """What comes after a block changes what the block gave."""
    return _made(Images, in_chans, num_classes, lambda: nn.SiLU(inplace=True))


def masked(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    """Pruned by torch: weights are computed from others and a mask."""
    model = _made(Images, in_chans, num_classes)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            prune.l1_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    return model


def with_pairs(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    return _made(Tokens, in_chans, num_classes, is_pair=True)


def with_one_table(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    return _made(Tokens, in_chans, num_classes, is_pair=False)


class Gain(nn.Module):
    """A factor for each channel that no file of weights holds."""

    factor: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.linspace(0.5, 1.5, channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Graded(nn.Module):
    """A block of tokens with such a factor inside."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gain, self.down = nn.Linear(CHANNELS, 32), Gain(32), nn.Linear(32, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = x + self.down(torch.relu(self.gain(self.up(x))))
        return outputs


class Patched(nn.Module):
    """Patches, four such blocks of tokens, a head."""

    def __init__(self, in_channels: int, num_outputs: int, block: Any) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, CHANNELS, 4, 4)
        self.blocks = nn.Sequential(*(block() for _ in range(4)))
        self.head = nn.Linear(CHANNELS, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
        return outputs


def with_gains(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    return _made(Patched, in_chans, num_classes, Graded)


def encoder(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    """torch's own transformer, which runs on a fast path where nothing is learned."""
    return _made(
        Patched,
        in_chans,
        num_classes,
        lambda: nn.TransformerEncoderLayer(CHANNELS, 2, 32, batch_first=True, dropout=0.0),
    )


class Branching(Images):
    """Does another thing where values are large: no graph says which."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x / 2 if x.max() > 100 else x)


def branching(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    return _made(Branching, in_chans, num_classes)


class Table(nn.Module):
    """Scales channels by a table that it slices, which a tracer takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.linspace(0.5, 1.5, CHANNELS), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.values[None, :, None, None]  # type: ignore[index]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.table = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), Table()
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = x + self.second(torch.relu(self.table(self.first(x))))
        return outputs


def _row(blocks: list[nn.Module], in_chans: int, num_classes: int) -> nn.Module:
    stem, head = nn.Conv2d(in_chans, CHANNELS, 3, padding=1), nn.Linear(CHANNELS, num_classes)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def with_constants(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
    return _made(lambda: _row([Scaled() for _ in range(3)], in_chans, num_classes))  # type: ignore[arg-type]


class Padded(nn.Module):
    def __init__(self, padding: Any, mode: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=padding, padding_mode=mode),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=padding, padding_mode=mode),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = x + self.body(x)
        return outputs


class Own(Images):
    """Prepares its inputs in place, and holds an order of channels that cannot learn as a parameter."""

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        super().__init__(in_channels, num_outputs)
        self.order = nn.Parameter(torch.arange(in_channels), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sub_(0.5).div_(0.25)[:, self.order])


def own(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    return _made(Own, in_chans, num_classes)


class FixedSize(Images):
    """Takes the number of examples for a number of its own: no program for any number can be made of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(int(x.shape[0]), *x.shape[1:]))


def fixed_size(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    return _made(FixedSize, in_chans, num_classes)
