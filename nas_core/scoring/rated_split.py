"""Examples that networks run on one after another, to be rated or recalibrated, in no more memory than there is.

N = examples, B = examples of a batch, H W = sides of a map.
"""

import math
from collections.abc import Iterator

import torch

from nas_core.training.layout import laid_out
from nas_core.workloads.examples import Examples, batches_of
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample

MOST_OF_MAPS = 16_000_000  # values of all outputs together: 64 MB


class PreparedBatches:
    """Prepared batches, B x ..., on the device: kept where they take ``most_bytes`` at most, else made each time."""

    def __init__(
        self,
        inputs: torch.Tensor | Examples,
        size: int,
        *,
        prepare: Normalisation,
        device: torch.device,
        most_bytes: float,
    ) -> None:
        self.inputs, self.size, self.prepare, self.device = inputs, size, prepare, device
        values = math.prod(inputs.shape)
        self.kept = list(self._made()) if values * torch.float32.itemsize <= most_bytes else None

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """A network may work in place on what it takes: what is kept is handed out as copies."""
        return self._made() if self.kept is None else (batch.clone() for batch in self.kept)

    def _made(self) -> Iterator[torch.Tensor]:
        return (self._prepared(batch) for batch in batches_of(self.inputs, self.size))

    def _prepared(self, batch: torch.Tensor) -> torch.Tensor:
        return laid_out(self.prepare(batch.to(self.device)))


def map_step(sample: Sample, num_examples: int) -> int:
    """Every how many rows and columns of a map count, so that all outputs together have ``MOST_OF_MAPS`` values."""
    if not sample.dense:
        return 1
    values = num_examples * sample.num_outputs * math.prod(sample.shape[-2:])
    return math.ceil(math.sqrt(values / MOST_OF_MAPS)) or 1


def thinned(maps: torch.Tensor, step: int) -> torch.Tensor:
    """Every ``step``-th row and column of maps, N ... H W; a copy, so that the rest can go."""
    return maps if step == 1 else maps[..., ::step, ::step].clone()
