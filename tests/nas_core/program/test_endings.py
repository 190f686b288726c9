"""Endings that are looked up: all that fit beside a part, whatever cells and classes they are in."""

import numpy as np
import pytest

from nas_core.program import endings
from nas_core.program.endings import Endings

PRICES = np.array([3.0, 0.0, 1.5, 2.0])
LIMITS = np.array([60, 90, 60, 70])


def beside(parts: np.ndarray, costs: np.ndarray, values: np.ndarray, least: np.ndarray) -> set[tuple[int, int]]:
    """(part, ending) by looking at each."""
    fits = (costs[None] <= (LIMITS - parts)[:, None]).all(axis=2) & (values[None] >= least[:, None])
    return {(int(p), int(e)) for p, e in zip(*np.nonzero(fits), strict=True)}


@pytest.mark.parametrize("most_slacks", [3, 4_000])
@pytest.mark.parametrize("factor", [1, 1_000])
@pytest.mark.parametrize("seed", range(4))
def test_all_that_fit_are_found(seed: int, factor: int, most_slacks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are costs at the prices plus noise, as where many limits bind; rooms are what is known of each part."""
    monkeypatch.setattr(endings, "MOST_SLACKS", most_slacks)
    monkeypatch.setattr(endings, "CHUNK", 1 << 10)
    rng = np.random.default_rng(seed)
    costs, parts = rng.integers(0, 50, (3_000, 4)), rng.integers(0, 50, (500, 4))
    noise = rng.integers(0, 20, len(costs))
    values = (costs @ PRICES).astype(np.int64) + noise
    least = ((LIMITS - parts) @ PRICES).astype(np.int64) + rng.integers(0, 15, len(parts))
    top = float((values - costs @ PRICES).max())
    room = top + (LIMITS - parts) @ PRICES - least  # an ending's loss and the slack's price
    listed = Endings(
        (0,),
        [values.astype(np.int32), (costs * factor).astype(np.uint32), np.arange(len(costs))[:, None]],
        PRICES / factor,
        top,
        float(room.max()),
    )
    spare = (LIMITS - parts) * factor
    found = listed.partners(spare, least, room, np.zeros(len(parts), dtype=np.int64), PRICES[None] / factor)
    wanted = beside(parts, costs, values, least)
    roomy = set(found.roomy_S.tolist())
    pairs = zip(found.part_N.tolist(), listed.pick_SG[found.ending_N, 0].tolist(), strict=True)
    assert set(pairs) == {(p, e) for p, e in wanted if p not in roomy}
    assert wanted
    assert len(roomy) < len(parts) if most_slacks > 3 else roomy
