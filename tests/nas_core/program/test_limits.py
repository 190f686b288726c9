import math
import re

import numpy as np
import pytest

from nas_core.base.errors import ConfigError
from nas_core.program import format_amount, parse_limit, read_problem, solve
from nas_core.program.limits import PATTERN
from nas_core.program.problem import Budget
from nas_core.space.genotypes import Genotype

BASE = {"latency_ms": 20.0, "flops": 4e9, "params": 5_000_000.0, "energy_mj": 8.0, "weight_bytes": 1024.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency_ms<=12 ms", Budget(resource="latency_ms", at_most=12.0)),
        ("latency <= 1200us", Budget(resource="latency_ms", at_most=1.2)),
        ("latency_ms<=0.1 s", Budget(resource="latency_ms", at_most=100.0)),
        ("latency_ms <= 12", Budget(resource="latency_ms", at_most=12.0)),
        ("flops<=60%", Budget(resource="flops", at_most=2.4e9)),
        ("params<=5 M", Budget(resource="params", at_most=5e6)),
        ("params<=22.5B", Budget(resource="params", at_most=22.5e9)),
        ("flops>=1 G", Budget(resource="flops", at_least=1e9)),
        ("flops=2 .. 3 M", Budget(resource="flops", at_least=2e6, at_most=3e6)),
        ("flops=900 K..3 M", Budget(resource="flops", at_least=9e5, at_most=3e6)),
        ("flops=50% .. 75%", Budget(resource="flops", at_least=2e9, at_most=3e9)),
        ("energy_mj<=0.004 J", Budget(resource="energy_mj", at_most=4.0)),
        ("weight_bytes<=2 KiB", Budget(resource="weight_bytes", at_most=2048.0)),
        ("params==1_000", Budget(resource="params", at_least=1000.0, at_most=1000.0)),
        ("flops<=3e9", Budget(resource="flops", at_most=3e9)),
    ],
)
def test_limits_as_people_write_them(text: str, expected: Budget) -> None:
    assert parse_limit(text).resolve(BASE) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency_ms", "found 'latency_ms'"),
        ("latency_ms < 12", "found"),
        ("latency_ms<=fast", "'fast'"),
        ("latency_ms<=12 M", "unit 'M'"),
        ("flops<=3 ms", "unit 'ms'"),
        ("speed<=3", "one of|resource of the problem"),
        ("flops=1..2..3", "found"),
        ("flops<=1 .. 2", "found"),
        ("flops=3 .. 2 M", "at_least"),
        ("flops<=", "found"),
    ],
)
def test_nonsense_is_refused_loudly(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_limit(text).resolve(BASE)


def test_a_percentage_needs_a_base_network() -> None:
    limit = parse_limit("flops<=60%")
    with pytest.raises(ConfigError, match="base network"):
        limit.resolve(None, resources=["flops"])


def test_amounts_for_people() -> None:
    assert format_amount("latency_ms", 3.1, sign=True) == "+3.1 ms"
    assert format_amount("params", 400_000, sign=True) == "+0.4 M params"
    assert format_amount("energy_mj", -2.0, sign=True) == "-2 mJ"
    assert format_amount("flops", 12) == "12 flops"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params_M<=5 M", Budget(resource="params_M", at_most=5.0)),
        ("params_M<=5", Budget(resource="params_M", at_most=5.0)),
        ("params_M<=400 K", Budget(resource="params_M", at_most=0.4)),
        ('"FLOPs (M)"<=2 G', Budget(resource="FLOPs (M)", at_most=2000.0)),
        ("'FLOPs (M)' >= 1.5", Budget(resource="FLOPs (M)", at_least=1.5)),
        ("'latency (us)'<=2 ms", Budget(resource="latency (us)", at_most=2000.0)),
        ("pixel3_latency<=5", Budget(resource="pixel3_latency", at_most=5.0)),
    ],
)
def test_resources_in_units_of_their_own(text: str, expected: Budget) -> None:
    names = ["params_M", "FLOPs (M)", "latency (us)", "pixel3_latency"]
    assert parse_limit(text).resolve(resources=names) == expected


def test_a_multiple_of_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="states no unit"):
        parse_limit("pixel3_latency<=5 M").resolve(resources=["pixel3_latency"])


def test_amounts_have_the_digits_that_tell_them_apart() -> None:
    assert format_amount("params", 11_688_008) == "11.688008 M params"
    assert format_amount("params_M", 0.5, sign=True) == "+0.5 M params"
    assert str(Budget(resource="params", at_most=11_688_000.0)) == "params <= 11688000"
    assert str(Budget(resource="ms", at_most=0.1, at_least=1e-9)) == "ms <= 0.1 and ms >= 1e-09"


@pytest.mark.situations
@pytest.mark.parametrize(
    ("text", "spellings"),
    [
        ("flops=60%", ["flops<=60%", "flops>=60%", "flops==60%", "flops=57% .. 63%"]),
        ("latency_ms = 12 ms", ["latency_ms<=12 ms", "latency_ms=11.4 ms .. 12.6 ms"]),
        ('"FLOPs (M)"=2000', ['"FLOPs (M)"<=2000', '"FLOPs (M)"==2000']),
        ("params=11_689_512", ["params<=11689512", "params==11689512"]),
    ],
)
def test_an_equals_sign_that_may_mean_two_things_is_refused_with_the_spellings(text: str, spellings: list[str]) -> None:
    with pytest.raises(ConfigError, match="may mean at most or exactly") as refused:
        parse_limit(text)
    assert all(spelling in str(refused.value) for spelling in spellings)
    for spelling in refused.value.expected.replace(" or a range such as ", ", ").split(", "):
        parse_limit(re.sub(r" \((at most|at least|exactly)\)", "", spelling))  # each can be taken as it stands


GOOD = [
    "flops<=60%", "flops==3", "latency_ms >= 2 ms", "flops=0.8 .. 1.2 G", "flops=.5..1", " params <= 5 M ", "flops≤5e6",
    "latency<=1_000 µs", '"FLOPs (M)"<=2000', "weight_bytes==1 .. 2 MiB", "energy_mj<=.5e-3 J",
]  # fmt: skip
BAD = [
    "", "speed", "flops=60%", "flops<=", "flops<=many", "flops<=5 furlongs", "flops<=5%%", "flops<=1 .. 2", "<=5 M",
    "flops=1 ..", "flops<=1.2.3", "flops <= 5 M params", "2flops<=3", "flops<=5e99999",
]  # fmt: skip


@pytest.mark.situations
@pytest.mark.parametrize("text", GOOD)
def test_the_form_takes_what_the_parser_does(text: str) -> None:
    assert re.search(PATTERN, text)
    parse_limit(text)


@pytest.mark.situations
@pytest.mark.parametrize("text", BAD)
def test_the_form_refuses_what_is_no_limit(text: str) -> None:
    assert not re.search(PATTERN, text)
    with pytest.raises(ConfigError):  # a unit is known to fit or not once the resource is
        parse_limit(text).resolve({"flops": 1.0})


@pytest.mark.parametrize("seed", range(20))
def test_a_network_keeps_a_limit_that_is_its_own_total(seed):
    """As it is printed: a sum, rounded, of numbers that are rounded."""
    rng = np.random.default_rng(seed)
    rows = [[float(np.mean(rng.uniform(0.1, 0.4, 15))) for _ in range(3)] for _ in range(1 + seed % 7)]
    base = Genotype((2,) * len(rows))
    own = math.fsum(row[2] for row in rows)
    problem = {"score": [[0.0, 0.5, 1.0]] * len(rows), "costs": {"ms": rows}, "base": str(base)}
    for budgets in (["ms<=100%", "ms>=100%"], [f"ms=={own!r}"]):
        assert solve(read_problem({**problem, "budgets": budgets})).best.genotype == base


def test_what_people_type_and_whole_numbers_stay_as_they_are():
    assert parse_limit("ms<=12.5").resolve({"ms": 20.1}).at_most == 12.5
    assert parse_limit("ms<=0.37767").resolve({"ms": 0.377677}).at_most == 0.37767
    assert parse_limit("flops<=70%").resolve({"flops": 204321.0}).at_most == 143024.7
    assert parse_limit("flops<=123456789012345678").resolve({"flops": 1.0}).at_most == float(123456789012345678)
