"""The processes that train one network together, each on its share of every batch.

Whoever starts them (Ray Train, torchrun) makes torch's process group; here it
is only asked. A batch is drawn as one process would draw it, then divided;
gradients, losses and running statistics are added up once a step, when all
gradients of a share are complete. torch's DistributedDataParallel would begin
while they are computed, but a process that runs out of memory half-way, and
runs its share in parts, would leave the others waiting for ever.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from nas_core.base.errors import NasError

BUCKET_BYTES = 32 * 2**20  # of tensors that are added up in one message


class Group:
    """One process that is alone."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether it is this process that writes and reports."""
        return self.rank == 0

    def rows(self, batch_size: int) -> torch.Tensor:
        """Indices of this process's examples of a batch: equally many from its front and from its back.

        Mixup pairs the n-th example with the n-th from the end, so both have to be here.
        """
        half = batch_size // 2
        first = torch.arange(half * self.rank // self.size, half * (self.rank + 1) // self.size)
        middle = torch.full((batch_size % 2 if self.leads else 0,), half)
        return torch.cat([first, middle, batch_size - 1 - first.flip(0)])

    def span(self, count: int) -> slice:
        """Which of so many examples this process looks at, where their order stays."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check(self, batch_size: int, alike: bool = False) -> None:
        """Raises NasError where a batch has too few examples for all, or not as many for each (``alike``)."""
        if self.size == 1:
            return
        least = 2 * self.size
        if batch_size < least:
            raise NasError("recipe.batch_size", batch_size, f"{least} at least, two for each of {self.size} workers")
        if alike and batch_size % least:
            expected = f"a multiple of {least}, as parts are synchronised over {self.size} workers"
            raise NasError("recipe.batch_size", batch_size, expected)

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put in place of each tensor the sum of all processes' own; the same bits in each."""

    def gathered(self, tensor: torch.Tensor, count: int) -> torch.Tensor:
        """The spans of all, one after the other: ``count`` rows."""
        return tensor

    def told(self, value: Any) -> Any:
        """The leader's value."""
        return value


class TorchGroup(Group):
    """This process in torch's process group, which somebody has made."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        under_way = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in under_way:
            work.wait()
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gathered(self, tensor: torch.Tensor, count: int) -> torch.Tensor:
        spans = [of_size(self.size, rank).span(count) for rank in range(self.size)]
        most = max(span.stop - span.start for span in spans)
        mine = tensor.new_zeros(most, *tensor.shape[1:])  # messages are of one size
        mine[: len(tensor)] = tensor
        found = [torch.empty_like(mine) for _ in spans]
        dist.all_gather(found, mine)
        return torch.cat([part[: span.stop - span.start] for part, span in zip(found, spans, strict=True)])

    def told(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


ALONE = Group()


def current() -> Group:
    """The group that this process was started in."""
    return TorchGroup() if dist.is_available() and dist.is_initialized() else ALONE


def of_size(size: int, rank: int = 0) -> Group:
    """What one of so many processes knows of its share; it cannot reach the others."""
    group = Group()
    group.rank, group.size = rank, size
    return group


def _buckets(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Tensors of one type that together are as large as a message."""
    buckets: list[list[torch.Tensor]] = []
    by_type: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
    for tensor in tensors:
        by_type[tensor.dtype].append(tensor)
    for same in by_type.values():
        filled = BUCKET_BYTES
        for tensor in same:
            if filled >= BUCKET_BYTES:
                buckets.append([])
                filled = 0
            buckets[-1].append(tensor)
            filled += tensor.nbytes
    return buckets
