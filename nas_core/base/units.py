"""Quantities as people write them, ``1.82 G`` or ``12 ms``, and the units that names of resources state."""

import re
from dataclasses import dataclass
from fractions import Fraction

from nas_core.base.errors import ConfigError

_SI = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 10**3), "": Fraction(1)}
# Ending of a resource's name -> (unit it is in, what every unit of that quantity is worth).
_TIME = {**{f"{prefix}s": worth for prefix, worth in _SI.items()}, "µs": _SI["u"]}
_ENERGY = {**{f"{prefix}J": worth for prefix, worth in _SI.items()}, "µJ": _SI["u"], "kJ": Fraction(1000)}
_BYTES = {
    "B": Fraction(1),
    **{f"{prefix}B": Fraction(1000**power) for power, prefix in enumerate("kMGT", start=1)},
    "KB": Fraction(1000),
    **{f"{prefix}iB": Fraction(1024**power) for power, prefix in enumerate("KMGT", start=1)},
}
COUNT = {"": Fraction(1), "K": Fraction(10**3), "k": Fraction(10**3), "M": Fraction(10**6)}
COUNT |= {"G": Fraction(10**9), "B": Fraction(10**9), "T": Fraction(10**12)}
UNITS = tuple(dict.fromkeys([*_TIME, *_ENERGY, *_BYTES, *COUNT]))  # every symbol that an amount may have
_ENDINGS: dict[str, tuple[str, dict[str, Fraction]]] = {
    **{unit: (unit, _TIME) for unit in ("ns", "us", "ms", "s")},
    **{unit.lower(): (unit, _ENERGY) for unit in ("nJ", "uJ", "mJ", "J")},
    "bytes": ("B", _BYTES),
    "kb": ("kB", _BYTES),
    "mb": ("MB", _BYTES),
    "gb": ("GB", _BYTES),
    "mib": ("MiB", _BYTES),
    "mflops": ("M", COUNT),
    "gflops": ("G", COUNT),
}
MULTIPLES = {"K": "K", "k": "K", "M": "M", "G": "G", "T": "T"}  # as endings, in this case only: params_M, FLOPs (G)
_COUNTED = ("flop", "param", "mac", "ops", "weights", "adds", "num_", "count", "tokens", "neurons", "channels")
# an exponent of more digits would take for ever to write out
_AMOUNT = re.compile(r"(?P<number>[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?)\s*(?P<unit>%|[A-Za-zµ]*)")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number with the unit the user wrote: a unit's symbol, ``%``, or nothing."""

    number: Fraction
    unit: str

    def __str__(self) -> str:
        number = float(self.number)
        digits = f"{number:g}" if float(f"{number:g}") == number else repr(number)
        return f"{digits}{'' if self.unit in ('', '%') else ' '}{self.unit}"


def parse_amount(text: str, where: str) -> Amount:
    """The amount written as ``text``; raises ConfigError if it is not a number with an optional unit."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ConfigError(where, repr(text), "a number with an optional unit or %, such as 12 ms, 5 M, 60%")
    return Amount(Fraction(match["number"].replace("_", "")), match["unit"])


def parse_count(text: str, where: str) -> int:
    """The whole number a text such as ``1.82 G`` stands for.

    Raises:
        ConfigError: if it is not a positive number, of 64 bits at most, with at most one of the letters k, M, G, B, T.
    """
    amount = parse_amount(text.strip(), where)
    number = round(amount.number * COUNT.get(amount.unit, 0))
    if not 0 < number < 2**63:
        raise ConfigError(where, repr(text), "a positive number below 9.2e18 with k, M, G or T, such as '1.82 G'")
    return number


def bracketed(resource: str) -> str | None:
    """``M`` of ``FLOPs (M)``."""
    match = re.fullmatch(r".*\(\s*([A-Za-zµ]+)\s*\)\s*", resource)
    return None if match is None else match[1]


def is_count(resource: str) -> bool:
    """Whether the name of a resource says that it is counted."""
    return any(word in resource.lower() for word in _COUNTED)


def unit_of(resource: str) -> tuple[str, dict[str, Fraction]] | None:
    """(unit, what every unit of its quantity is worth) that the end of a resource's name states."""
    head, _, tail = resource.rpartition("_")
    in_brackets = bracketed(resource)
    unit = in_brackets or tail
    if unit in MULTIPLES and (head or in_brackets):
        return MULTIPLES[unit], COUNT
    known = {**_ENDINGS, "µs": ("us", _TIME), "b": ("B", _BYTES), "kib": ("KiB", _BYTES), "gib": ("GiB", _BYTES)}
    if in_brackets is not None:
        return known.get(in_brackets.lower())
    return _ENDINGS.get(tail.lower()) if head or tail.lower() in ("mflops", "gflops") else None
