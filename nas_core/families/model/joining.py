"""Neighbouring blocks put together in rows, so that a model has about as many positions as are wanted.

Of all ways to have that many rows, the one with the least sum of squared
shares of the model's cost: the most even one.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from math import inf

from torch import nn

from nas_core.families.model.splitting import LARGEST, Place, Split

Row = tuple[Place | None, ...]  # None: a module of the sequence that is no position


def rows_of(model: nn.Module, found: Split, wanted: int) -> dict[str, list[int]]:
    """Which neighbours in sequences are to stand together so that there are about ``wanted`` positions.

    Path of an ``nn.Sequential`` -> how many of its modules make up each row, in order. Blocks that keep their input's
    shape come first; no row holds more than LARGEST of the model. Empty where nothing can be put together.
    """
    places = {place.path: place for place in found.places}
    rows: dict[str, list[Row]] = {
        path: [(places.get(f"{path}.{name}" if path else name),) for name, _ in module.named_children()]
        for path, module in model.named_modules()
        if type(module) is nn.Sequential
    }
    surplus = len(found.places) - wanted
    for any_shape in (False, True):
        before = _num_rows(rows)
        rows = _joined(rows, surplus, any_shape=any_shape)
        surplus -= before - _num_rows(rows)
    return {path: [len(row) for row in each] for path, each in rows.items() if any(len(row) > 1 for row in each)}


def _num_rows(rows: Mapping[str, list[Row]]) -> int:
    return sum(map(len, rows.values()))


def _joined(rows: Mapping[str, list[Row]], surplus: int, *, any_shape: bool) -> dict[str, list[Row]]:
    """The same with ``surplus`` rows fewer, or as many fewer as can be."""
    runs = {path: list(_runs(each, any_shape=any_shape)) for path, each in rows.items()}
    parted = [(_Parted(run), run) for each in runs.values() for run in each]
    for _ in range(surplus):
        cheapest = min((choice for choice, _ in parted), key=lambda choice: choice.next_costs, default=None)
        if cheapest is None or cheapest.next_costs == inf:
            break
        cheapest.count -= 1
    joined = iter(parted)
    return {path: [row for _ in each for row in next(joined)[0].rows()] for path, each in runs.items()}


def _runs(rows: list[Row], *, any_shape: bool) -> Iterator[list[Row]]:
    """The rows, those that may be put together in one list, the others each in its own."""

    def is_free(row: Row) -> bool:
        return all(place is not None and (any_shape or place.in_shape == place.out_shape) for place in row)

    for free, group in groupby(rows, is_free):
        run = list(group)
        yield from [run] if free else [[row] for row in run]


class _Parted:
    """A run of neighbours parted into ``count`` longer rows, as evenly as can be."""

    def __init__(self, run: list[Row]) -> None:
        self.run, self.count = run, len(run)
        shares = [sum(place.share for place in row if place) for row in run]
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}  # so many in rows -> squares, lengths of rows
        self.best = [best]  # by the number of rows
        for _ in run:
            best = {
                end: min(
                    (squares + _square(shares[start:end]), (*lengths, end - start))
                    for start, (squares, lengths) in best.items()
                    if start < end
                )
                for end in range(min(best) + 1, len(run) + 1)
            }
            self.best.append(best)

    @property
    def next_costs(self) -> float:
        """By how much the sum of squares grows with one row fewer."""
        if self.count <= 1:
            return inf
        squares = [self.best[count][len(self.run)][0] for count in (self.count - 1, self.count)]
        return squares[0] - squares[1]

    def rows(self) -> list[Row]:
        rest = iter(self.run)
        lengths = self.best[self.count][len(self.run)][1]
        return [tuple(place for _ in range(length) for place in next(rest)) for length in lengths]


def _square(shares: list[float]) -> float:
    whole = sum(shares)
    return inf if len(shares) > 1 and whole > LARGEST else whole**2
