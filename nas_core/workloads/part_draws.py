"""Draws for a part of a batch: what the whole batch would have drawn, so that nothing depends on how it is divided."""

from collections.abc import Callable

import torch


class PartGenerator(torch.Generator):
    """What the ``rows`` of a batch of ``size`` are augmented with.

    ``whole`` is seeded alike for all parts, the generator itself for each anew: an augmentation that only knows the
    examples it is given draws from it, and draws differently for each part.
    """

    whole: torch.Generator
    size: int
    rows: torch.Tensor

    def get_state(self) -> torch.Tensor:
        return torch.cat([super().get_state(), self.whole.get_state()])

    def set_state(self, state: torch.Tensor) -> torch.Generator:
        own, whole = (half.clone() for half in state.chunk(2))  # torch crashes on one that is a view
        self.whole.set_state(whole)
        return super().set_state(own)

    @classmethod
    def of(cls, device: torch.device, size: int, rows: torch.Tensor, seed: int, own_seed: int) -> "PartGenerator":
        made = cls(device)
        made.manual_seed(own_seed)
        made.whole, made.size, made.rows = torch.Generator(device).manual_seed(seed), size, rows
        return made


def for_batch(
    draw: Callable[[int, torch.Generator], torch.Tensor], size: int, generator: torch.Generator, axis: int = -1
) -> torch.Tensor:
    """``draw(size, generator)``, whose ``axis`` is the batch; of a part of one, its rows of what all of it draws."""
    if isinstance(generator, PartGenerator):
        return draw(generator.size, generator.whole).index_select(axis, generator.rows)
    return draw(size, generator)
