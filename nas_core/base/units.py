"""Quantities as people write them: "1.82 G", "11.69 M", 1.82e9."""

import re

from nas_core.base.errors import ConfigError

FACTORS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
PATTERN = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([kKMGT]?)\s*")


def parse_count(text: str, where: str) -> int:
    """The whole number a text such as ``1.82 G`` stands for.

    Raises:
        ConfigError: if it is not a positive number with at most one of the letters k, M, G, T.
    """
    match = PATTERN.fullmatch(text)
    try:
        value = float(match.group(1)) * FACTORS[match.group(2)] if match else 0.0
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ConfigError(where, repr(text), "a positive number with k, M, G or T, such as '1.82 G'")
    return round(value)


def format_count(value: float) -> str:
    """A count with three decimals and its letter, such as ``1.820 G``."""
    for letter in "GMk":
        if value >= FACTORS[letter]:
            return f"{value / FACTORS[letter]:.3f} {letter}"
    return f"{value:g}"
