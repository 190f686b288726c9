"""Limits as people write them: ``latency_ms <= 12 ms``, ``flops <= 60%``, ``flops = 2 .. 3 M``.

Grammar::

    limit    := RESOURCE "<=" AMOUNT | RESOURCE ">=" AMOUNT | RESOURCE "==" AMOUNT | RESOURCE "=" AMOUNT ".." AMOUNT
    RESOURCE := a name, in quotes if it holds more than letters, digits, _ and .
    AMOUNT   := NUMBER ["%" | UNIT]

``=`` with one amount is refused, as it may mean at most or exactly; ``==`` is
exactly. A percentage is of the base network's cost. A unit is converted to the resource's own, which the end of its
name states (``latency_ms``, ``energy_mj``, ``weight_bytes``, ``params_M``, ``"FLOPs (M)"``). Counts
(``flops``, ``params``, ...) take K, M, G (or B) and T; a resource of which
neither is known takes plain numbers only. ``latency`` finds ``latency_ms``.

Totals are printed rounded. So a percentage of one, and an amount of 15 digits or more, keep the network whose total
it is: both are taken a few last places further out.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from nas_core.base.errors import ConfigError
from nas_core.base.units import COUNT, MULTIPLES, UNITS, Amount, bracketed, is_count, parse_amount, unit_of
from nas_core.program.problem import Budget, format_measured, format_number

_NAME = r"""(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<resource>[A-Za-z_][\w.]*))"""
_LIMIT = re.compile(rf"\s*{_NAME}\s*(?P<sign><=|>=|==|=|≤|≥)\s*(?P<amounts>.+?)\s*")
# the grammar as one pattern, for forms; which unit fits which resource is said once those are known
_UNITS = "|".join(sorted(map(re.escape, filter(None, UNITS)), key=len, reverse=True))
_PLAIN_NAME = _NAME.replace("?P<double>", "?:").replace("?P<single>", "?:").replace("?P<resource>", "?:")
_AMOUNT = rf"[+-]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{{1,4}})? *(?:%|{_UNITS})?"
PATTERN = rf"^ *{_PLAIN_NAME} *(?:(?:<=|>=|==|≤|≥) *{_AMOUNT}|==? *{_AMOUNT} *\.\. *{_AMOUNT}) *$"
PRINTED_DIGITS = 15  # nobody types as many: a program printed the number
ROUNDED_ULPS = 4  # last places that a printed total may be off: it is a sum, rounded, of printed numbers
_EXPECTED = "RESOURCE<=AMOUNT, >= or ==, or RESOURCE=LOW .. HIGH, such as latency_ms<=12 ms or flops<=60%"


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedLimit:
    """A limit before it knows the problem's resources and its base network."""

    resource: str
    at_most: Amount | None = None
    at_least: Amount | None = None
    text: str

    def resolve(self, base_costs: Mapping[str, float] | None = None, *, resources: Iterable[str] = ()) -> Budget:
        """The limit in the resource's own unit.

        Args:
            base_costs: total cost of the base network per resource; percentages are of it.
            resources: the problem's resources, where they are more than those of ``base_costs``.

        Raises:
            ConfigError: for an unknown resource or unit, or a percentage without a base network.
        """
        known = {*resources, *(base_costs or {})}
        name = _resource_named(self.resource, known, self.text)
        base = None if base_costs is None else base_costs.get(name)
        upper = None if self.at_most is None else _in_own_unit(self.at_most, name, base, self.text, math.inf)
        lower = None if self.at_least is None else _in_own_unit(self.at_least, name, base, self.text, -math.inf)
        return Budget(resource=name, at_most=upper, at_least=lower)


def parse_limit(text: str) -> ParsedLimit:
    """The limit written as ``text``; see the module for the grammar.

    Raises:
        ConfigError: if the text is not a limit.
    """
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ConfigError("limit", repr(text), _EXPECTED)
    resource, sign = match["double"] or match["single"] or match["resource"], match["sign"]
    amounts = [parse_amount(part.strip(), f"limit {text!r}") for part in match["amounts"].split("..")]
    if len(amounts) > 2 or (len(amounts) == 2 and sign not in ("=", "==")):
        raise ConfigError("limit", repr(text), _EXPECTED)
    if len(amounts) == 2:
        low, high = amounts
        low = Amount(low.number, low.unit or high.unit)  # "2 .. 3 M" is two to three million
        return ParsedLimit(resource=resource, at_least=low, at_most=high, text=text)
    if sign == "=":
        raise _which_way(match["double"] or match["single"] or resource, amounts[0], text)
    if sign == "==":
        return ParsedLimit(resource=resource, at_least=amounts[0], at_most=amounts[0], text=text)
    if sign in (">=", "≥"):
        return ParsedLimit(resource=resource, at_least=amounts[0], text=text)
    return ParsedLimit(resource=resource, at_most=amounts[0], text=text)


def _which_way(resource: str, amount: Amount, text: str) -> ConfigError:
    """``flops=60%`` may mean three things: which spelling means which."""
    name = resource if re.fullmatch(r"[A-Za-z_][\w.]*", resource) else f'"{resource}"'
    around = [Amount(amount.number * share / 100, amount.unit) for share in (95, 105)]
    return ConfigError(
        f"limit {text!r}", "'=' with one amount, which may mean at most or exactly",
        f"{name}<={amount} (at most), {name}>={amount} (at least), {name}=={amount} (exactly) "
        f"or a range such as {name}={around[0]} .. {around[1]}"
    )  # fmt: skip


def format_amount(resource: str, value: float, *, sign: bool = False) -> str:
    """A total or a difference for people: ``12.3 ms``, ``+0.4 M params``."""
    ending = unit_of(resource)
    plus = "+" if sign and value > 0 else ""
    if ending is not None and ending[1] is not COUNT:
        return f"{plus}{format_measured(value, up=value > 0)} {ending[0]}"
    worth = Fraction(str(float(value))) * (COUNT[ending[0]] if ending else 1)
    if ending is None and not is_count(resource):
        return f"{plus}{format_measured(value, up=value > 0)} {resource}"
    for symbol in ("T", "G", "M", "K"):
        if abs(worth) >= COUNT[symbol] / 10:  # 0.4 M rather than 400 K
            return f"{plus}{_digits(float(worth / COUNT[symbol]))} {symbol} {_noun(resource)}"
    return f"{plus}{_digits(float(worth))} {_noun(resource)}"


def _digits(value: float) -> str:
    """Six digits, or all of them where six would not do."""
    short = f"{value:.6g}"
    return short if float(short) == value else format_number(value)


def _noun(resource: str) -> str:
    """``flops`` of ``flops_mflops``, ``params`` of ``params_M``, ``FLOPs`` of ``FLOPs (M)``."""
    if bracketed(resource) is not None:
        return resource[: resource.rindex("(")].strip()
    head, _, tail = resource.rpartition("_")
    stem = head if head and (tail in MULTIPLES or tail.lower() in ("mflops", "gflops")) else resource
    return stem.removeprefix("num_")


def is_called(resource: str, name: str) -> bool:
    """Whether a limit's name means the resource: ``latency`` is short for ``latency_ms``, whose unit goes without."""
    return resource == name or (resource.rpartition("_")[0] == name and unit_of(resource) is not None)


def _resource_named(name: str, known: Iterable[str], text: str) -> str:
    names = sorted(known)
    if name in names:
        return name
    loose = [other for other in names if is_called(other, name)]
    if len(loose) == 1:
        return loose[0]
    raise ConfigError(f"limit {text!r}", repr(name), f"a resource of the problem: {', '.join(names) or 'it has none'}")


def _in_own_unit(amount: Amount, resource: str, base: float | None, text: str, outward: float) -> float:
    """The amount; what was rounded already when it was printed, or summed, is given back towards ``outward``.

    Otherwise a network would be over a limit that is its own cost, or the base over ``<=100%``.
    """
    if amount.unit == "%":
        if base is None:
            raise ConfigError(f"limit {text!r}", "a percentage", "an amount", "There is no base network to take it of.")
        share = _finite(amount.number / 100 * Fraction(str(float(base))), text)
        return share if float(base).is_integer() else _further(share, outward)
    ending = unit_of(resource)
    if ending is None and amount.unit and not is_count(resource):
        advice = "Its name states no unit, such as latency_ms or params_M, so it takes plain numbers and %."
        raise ConfigError(f"limit {text!r}", f"unit {amount.unit!r}", f"a number in the unit of {resource}", advice)
    own, worths = ending or ("", COUNT)
    unit = amount.unit or own
    if unit not in worths:
        raise ConfigError(
            f"limit {text!r}", f"unit {amount.unit!r}", f"a unit of {resource}: {', '.join(filter(None, worths))} or %"
        )
    number = _finite(amount.number * worths[unit] / worths[own], text)
    is_printed = _num_digits(number) >= PRINTED_DIGITS and not number.is_integer()
    return _further(number, outward) if is_printed else number


def _further(number: float, outward: float) -> float:
    for _ in range(ROUNDED_ULPS):
        number = math.nextafter(number, outward)
    return number


def _num_digits(number: float) -> int:
    return len(Decimal(repr(number)).normalize().as_tuple().digits)


def _finite(number: Fraction, text: str) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ConfigError(f"limit {text!r}", "a number beyond any cost", "a number below 1e308") from None
