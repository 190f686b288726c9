"""Examples that networks are rated on: prepared once or each time, and of large maps some pixels."""

import pytest
import torch

from nas_core.scoring import rated_split
from nas_core.scoring.rated_split import PreparedBatches, map_step, thinned
from nas_core.workloads.examples import OnHost
from nas_core.workloads.normalisation import Normalisation
from nas_core.workloads.workload import Sample

IMAGES_NCHW = torch.arange(10 * 3 * 4 * 4, dtype=torch.float32).reshape(10, 3, 4, 4)
CPU = torch.device("cpu")
MAPS = Sample(shape=(3, 32, 48), num_outputs=5, dense=True)


def _batches(most_bytes: float, *, lazy: bool) -> PreparedBatches:
    inputs = OnHost(IMAGES_NCHW, CPU) if lazy else IMAGES_NCHW
    prepare = Normalisation(mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 2.0))
    return PreparedBatches(inputs, 4, prepare=prepare, device=CPU, most_bytes=most_bytes)


@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_the_same_whether_they_are_kept_or_made_each_time(lazy: bool) -> None:
    kept, made = _batches(1e9, lazy=lazy), _batches(IMAGES_NCHW.nbytes - 1, lazy=lazy)
    assert made.kept is None
    assert kept.kept is not None
    next(iter(kept)).zero_()  # as a network does that works in place
    assert len(kept) == len(made) == 3
    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(kept, made, strict=True))
    assert [len(batch) for batch in made] == [4, 4, 2]
    assert torch.equal(next(iter(made))[:, 1], (IMAGES_NCHW[:4, 1] - 2) / 2)


def test_maps_of_a_split_have_no_more_values_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = torch.rand(7, 5, 32, 48)
    assert map_step(MAPS, 7) == 1
    assert thinned(outputs, 1) is outputs
    monkeypatch.setattr(rated_split, "MOST_OF_MAPS", outputs.numel() // 5)
    step = map_step(MAPS, 7)
    part = thinned(outputs, step)
    assert step == 3
    assert part.numel() <= outputs.numel() // 5
    assert torch.equal(part[3, 2, 1, 2], outputs[3, 2, 3, 6])
    assert part.untyped_storage().nbytes() == part.nbytes


def test_what_is_no_map_counts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rated_split, "MOST_OF_MAPS", 1)
    assert map_step(Sample(shape=(3, 32, 48), num_outputs=1000), 50_000) == 1
