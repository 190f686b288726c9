"""Every number of a report's page, read as a person reads it, and every number that a study's store holds.

The page is parsed, not the summary it was made from; the store's files are read
as plain JSON and the study's frames as a notebook sees them. A number of the page
is traced if a stored or computed one, rounded to the digits that are shown, is it.
"""

import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

from nas_core.space.genotypes import Genotype
from nas_core.study.reasons import reasons

SIZES = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "%": 1e-2, "points": 1e-2, "µs": 1e-3, "ms": 1.0,
         "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}  # fmt: skip
NUMBER = re.compile(
    r"(?<![\w.@-])([+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)"
    r"(?: (k|M|G|T|points|µs|ms|KiB|MiB|GiB)\b|( %))?(?![\w-]*[A-Za-z_@-])"
)
GENOTYPE = re.compile(r"\b\d+(?:-\d+)+\b")
SILENT = {"style", "script", "svg", "head", "code", "pre"}


class Page(HTMLParser):
    """Tables by their section (heads and rows of cells), and all other texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.texts: list[str] = []
        self._section, self._silent, self._cell = "", 0, False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in SILENT:
            self._silent += 1
        elif tag == "section":
            self._section = dict(attrs)["id"]
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self._cell = True
            self.tables[self._section][-1][-1].append("")

    def handle_endtag(self, tag):
        if tag in SILENT:
            self._silent -= 1
        elif tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._silent or not data.strip():
            return
        if self._cell:
            self.tables[self._section][-1][-1][-1] += data
        else:
            self.texts.append(" ".join(data.split()))

    def table(self, section: str, first: str) -> list[dict[str, str]]:
        """The rows of the section's table whose head begins so, by its head."""
        (found,) = [rows for rows in self.tables[section] if rows[0][0] == first]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


@dataclass(frozen=True)
class Shown:
    """A number as it is shown: its value, and by how much rounding may have moved it."""

    value: float
    rounding: float
    text: str

    def is_of(self, stored: float) -> bool:
        return abs(abs(self.value) - abs(stored)) <= self.rounding * (1 + 1e-6) + 1e-12


def numbers(text: str) -> list[Shown]:
    """The numbers of a text, with the units behind them; networks and ids are none."""
    found = []
    for match in NUMBER.finditer(GENOTYPE.sub(" ", text)):
        digits, size = match[1].replace(",", "").replace("−", "-"), SIZES.get((match[2] or match[3] or "").strip(), 1.0)
        mantissa, _, exponent = digits.partition("e")
        decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
        found.append(Shown(float(digits) * size, 0.5 * 10.0**-decimals * size, match[0].strip()))
    return found


def only(text: str) -> Shown:
    """The first number of a cell; what stands in brackets comes behind it."""
    return numbers(text)[0]


def values(data) -> list[float]:
    """Every number in JSON, and in texts of it."""
    if isinstance(data, bool) or data is None:
        return []
    if isinstance(data, int | float):
        return [float(data)] if math.isfinite(data) else []
    if isinstance(data, str):
        return [shown.value for shown in numbers(data)]
    rows = data.values() if isinstance(data, dict) else data
    return [value for row in rows for value in values(row)]


def stored(study) -> list[float]:
    """What the store holds, the report left out, and what its frames and its snapshot compute."""
    root = Path(study.store.root)
    known: list[float] = []
    for path in study.store.paths():
        if path.endswith(".json") and not path.startswith(("report", "mlartifacts")):
            known += values(json.loads((root / path).read_text()))
    known += values(study.config.model_dump(mode="json"))
    for frame in (study.evaluations_frame(), study.costs_frame(), study.effects_frame()):
        known += values(json.loads(frame.to_json(orient="records", double_precision=15)))
    networks = {Genotype.parse(row.genotype) for row in study.evaluations()} | {study.base}
    for prediction in study.predictor().predict(networks):
        known += [prediction.metric, prediction.low, prediction.high]
    for genotype in networks:
        known += study.costs_of(genotype).values()
    for tables in study.cost_tables.values():
        known += [price for table in tables.values() for row in table.block for price in row]
    return [*known, *_computed(study)]


def _computed(study) -> list[float]:
    """What the page works out of stored numbers: counts, shares, differences, sums."""
    space, rows, winner = study.space, study.evaluations(), Genotype.parse(study.winner)
    calibration, chosen = study.snapshot.calibration, study.predictor().chosen
    found = values(calibration.as_dict()) if calibration else []
    found += [chosen.score, len(study.predictor().selection), 0.9, 0.95, 0.0, 1.0]
    for agreement in study.additivity.values():
        found += values(agreement.as_dict())
        ratios = [summed / whole for summed, whole in zip(agreement.predicted, agreement.measured, strict=True)]
        factor = sum(ratios) / len(ratios)
        found += [factor, *(abs(ratio - 1) for ratio in ratios), *(abs(ratio / factor - 1) for ratio in ratios)]
    for budget in study.snapshot.limits:
        found += [budget.at_most or 0.0, budget.at_least or 0.0]
        found += [study.costs_of(winner)[budget.resource] / budget.at_most]
    found.append(1e3 * study.last_answer()["solve_s"])
    base = study.costs_of(study.base)
    trained = (study.current("train") or {"networks": []})["networks"]
    for row in trained:
        found += [row["costs"][name] / base[name] for name in base if base[name]]
    metric = trained[0]["metric_name"]
    tests = [row["metrics"]["test"][metric] for row in trained]
    found += [one - other for one, other in product(tests, tests)]
    found += _by_class(trained[0].get("details", {}).get("confusion", ()))
    count, value = trained[0]["num_test_examples"], tests[0]
    share = (value * count + 2) / (count + 4)
    found.append(1.96 * math.sqrt(2 * share * (1 - share) / count))
    records = {stage: row["wall_s"] for stage, row in study.records().items()}
    took = [row["wall_s"] for row in trained]
    until_the_report = sum(seconds for stage, seconds in records.items() if stage != "report")
    for seconds in (*records.values(), *took, sum(took), until_the_report):
        found += [1e3 * seconds, *divmod(seconds, 60), *divmod(round(seconds), 60)]
    found += [len(rows), len({row.genotype for row in rows}), space.num_networks, space.num_positions]
    found += [len(rows) / space.num_networks, winner.distance(study.base), *space.num_choices, *space.resolutions]
    found.append(sum(row.status == "failed" for row in rows))
    found += [(1 + calibration.kendall) / 2] if calibration else []
    for row in (study.current("verify") or {}).get("whole") or ():
        found.append(study.costs_of(Genotype.parse(row["genotype"]))[row["resource"]] / row["value"] - 1)
        found.append(2 * row["spread"])  # the middle 80 % of runs, of which half is kept
    found += _of_swaps(study, winner)
    found += [len(trained), len(study.additivity), *range(1, 1 + max(space.num_choices, default=0))]
    return found


def _of_swaps(study, winner) -> list[float]:
    """What another block in the winner's place would change, how many would help, what raising a limit would buy."""
    space, costs = study.space, study.costs_of(winner)
    places = [(p, c) for p, count in enumerate(space.num_choices) for c in range(count) if c != winner.choices[p]]
    others = [winner.swap(*place) for place in places]
    mine, *predicted = (row.metric for row in study.predict([winner, *others]))
    found = [float(number) for number in range(len(places) + 1)]
    found += [value - mine for value in predicted]
    found += [study.costs_of(other)[name] - costs[name] for other in others for name in costs]
    for price in reasons(study.snapshot, winner).prices:
        found += [price.at_most, price.by, price.by / price.at_most, price.predicted, price.gain]
    return found


def _by_class(confusion) -> list[float]:
    """Counts and shares of each class: recall, precision, F1, what it was taken for."""
    found: list[float] = []
    for index, row in enumerate(confusion):
        guessed, examples, right = sum(other[index] for other in confusion), sum(row), row[index]
        found += [examples, 2 * right / max(examples + guessed, 1), right / max(guessed, 1)]
        found += [count / max(examples, 1) for count in row]
    return found
