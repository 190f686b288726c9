"""Matching two lists of halves: nothing that matches is missed, whatever the costs are like."""

import itertools

import numpy as np
import pytest

from nas_core.program import halves
from nas_core.program.halves import Goal, Half, Prices, by_buckets, half_of, matching, sums_near, windows


def listed(rng: np.random.Generator, count: int, num_rows: int, scale: int) -> Half:
    change = rng.integers(-9, 10, (count, num_rows)) * scale + (rng.integers(0, scale, (count, num_rows)))
    none = np.zeros(0, dtype=np.int64)
    return Half(np.sort(rng.uniform(0, 10, count)), change, none, none, none)


@pytest.mark.parametrize("scale", [1, 7, 10**6, 10**15])
@pytest.mark.parametrize("num_rows", [1, 2, 4, 6])
def test_buckets_and_windows_hold_every_match(scale: int, num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([scale, num_rows])
    left, right = listed(rng, 400, num_rows, scale), listed(rng, 300, num_rows, scale)
    duals = rng.uniform(0.3, 1.5, num_rows) / scale
    duals[num_rows // 2] *= num_rows % 4 != 0  # a row without a price
    prices = Prices(slack_K=rng.integers(-3, 6, num_rows) * scale, duals_K=duals)
    g = 4.0 + 3.0 * num_rows
    every = np.indices((400, 300)).reshape(2, -1)
    wanted = set(zip(*(part.tolist() for part in matching(prices, left, right, *every, g)[:2]), strict=True))
    assert wanted
    monkeypatch.setattr(halves, "CHUNK", 100)
    monkeypatch.setattr(halves, "MANY_PAIRS", 5_000)
    for pairs in (by_buckets(prices, left, right, Goal(g)), windows(prices, left, right, g)):
        found = list[tuple[int, int]]()
        for left_N, right_N in pairs:
            kept = matching(prices, left, right, left_N, right_N, g)
            found += zip(kept[0].tolist(), kept[1].tolist(), strict=True)
        assert sorted(found) == sorted(wanted)


def test_the_goal_may_fall_meanwhile() -> None:
    rng = np.random.default_rng(5)
    left, right = listed(rng, 1_000, 4, 1), listed(rng, 1_000, 4, 1)
    prices = Prices(slack_K=np.array([2, 0, 1, 3]), duals_K=np.array([0.5, 0.9, 0.7, 1.1]))
    best = matching(prices, left, right, *np.indices((1_000, 1_000)).reshape(2, -1), g=9.0)[2].min()
    goal, looked = Goal(9.0), 0
    for left_N, right_N in by_buckets(prices, left, right, goal):
        looked += len(left_N)
        goal.g = min(goal.g, *matching(prices, left, right, left_N, right_N, goal.g)[2].tolist(), goal.g)
    assert goal.g == best
    assert looked < 1_000 * 1_000 / 20


def test_the_combinations_that_lose_least() -> None:
    rng = np.random.default_rng(2)
    loss_C, change_CK = rng.uniform(0, 3, 12), rng.integers(-5, 6, (12, 3))
    groups = [np.arange(3 * g, 3 * g + 3) for g in range(4)]
    every = [
        (sum(loss_C[c] for c in taken if c >= 0), [c for c in taken if c >= 0])
        for taken in itertools.product(*([-1, *group] for group in groups))
    ]
    every.sort(key=lambda one: one[0])
    half = half_of(groups, loss_C, change_CK, np.inf, np.inf, most=100)
    assert half.loss_S.tolist() == pytest.approx([loss for loss, _ in every[:100]])
    assert half.change_SK[37].tolist() == change_CK[every[37][1]].sum(axis=0).tolist()


@pytest.mark.parametrize("width", [1, 3])
def test_sums_near_a_target(width: int) -> None:
    rng = np.random.default_rng(8)
    first, second = listed(rng, 200, 3, 1), listed(rng, 150, 3, 1)
    rows, target = np.array([2, 0]), np.array([1, -2])
    found = set(
        zip(*(part.tolist() for part in sums_near(first, second, rows, np.full(2, width), target)), strict=True)
    )
    off = np.abs(first.change_SK[:, None, rows] + second.change_SK[None, :, rows] - target).max(axis=2)
    assert all(off[pair] < width for pair in found)
    assert found >= {(int(a), int(b)) for a, b in np.argwhere(off == 0)}
