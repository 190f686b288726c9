"""Latency that another machine measures: what it is to measure, and what it brought. No torch at import."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from nas_core.base.errors import ConfigError, NasError, SpaceError
from nas_core.base.identity import content_id
from nas_core.base.words import counted
from nas_core.costs import profiler_of
from nas_core.costs.latency import RESOURCE as LATENCY
from nas_core.costs.parts import base_genotypes
from nas_core.costs.profiler import Measured, Measurement, Profiler, RowWriter
from nas_core.records.evaluations import Cost
from nas_core.space.genotypes import Genotype
from nas_core.study.rounds import (
    chosen_in_words,
    finalists,
    move_limits,
    record_whole,
    retract_moves,
    verification,
)
from nas_core.study.stages import record_path
from nas_core.study.study import Study

Purpose = Literal["blocks", "whole"]  # what blocks cost; what base, finalists and a sweep's points take whole
HOW = ("batch_size", "num_threads")
NEEDED = ("asked", "purpose", *HOW, "genotype", "status", "ms", "spread_ms", "repeats", "device", "message")
MISSING = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What another machine measured: its name, and every network's latency or why there is none."""

    purpose: Purpose
    device: str
    networks: dict[Genotype, Measured]


class Elsewhere:
    """A study whose latency another machine measures.

    ``sample`` are the networks that tell how additive it is, ``chosen`` those
    that are measured whole once there is a choice.
    """

    def __init__(self, study: Study, sample: Sequence[Genotype], chosen: Sequence[Genotype]) -> None:
        self.study, self.sample, self.chosen = study, list(sample), list(chosen)
        self.profiler: Profiler = profiler_of(LATENCY, study.config.profile)
        if self.profiler.measures_here or LATENCY not in study.profiler_ids:
            expected = "elsewhere, with latency_ms among profile.resources"
            advice = "Set it with --set profile.profilers.latency.where=elsewhere when the study is run."
            raise ConfigError("profile.profilers.latency.where", "here", expected, advice)
        if len(study.space.resolutions) > 1:
            raise SpaceError(f"space {study.space.name}", "several resolutions", "one, to be measured elsewhere")

    @cached_property
    def asked(self) -> str:
        """Id of what is measured how, by which rows that come back are known."""
        return content_id({"space": self.study.space.space_id, "profiler": self.study.profiler_ids[LATENCY]})

    @property
    def base(self) -> Genotype:
        return base_genotypes(self.study.space)[0]

    @property
    def purpose(self) -> Purpose:
        """Blocks first; once they are known, the networks chosen."""
        return "whole" if self.study.costs(LATENCY) else "blocks"

    def networks(self) -> list[Genotype]:
        """The networks to measure next, the base first; raises NasError where nothing is chosen yet."""
        if self.purpose == "blocks":
            return list(dict.fromkeys((*self._of_blocks(), *self.sample)))
        if not self.chosen:
            advice = "`mathnas run` goes on; once a network is chosen it can be measured whole."
            raise NasError(
                self.study.store.root, "every block is measured, nothing is to be", "a chosen network", advice
            )
        return list(dict.fromkeys((self.study.base, *self.chosen)))

    def _of_blocks(self) -> list[Genotype]:
        """The networks that tell what each block costs, the base first."""
        from nas_core.costs.timing import drawn_networks

        drawn = drawn_networks(self.study.family, self.base, self.profiler.settings)
        return list(dict.fromkeys((self.base, *drawn)))

    def packed(self, tell: Callable[[int, int], object]) -> bytes:
        """The file that measures them: a Python zip application."""
        from nas_core.costs.carried import packed

        about = {"asked": self.asked, "purpose": self.purpose}
        return packed(self.study.family, self.networks(), self.profiler.settings, about, tell)

    # back again

    def read(self, text: str, source: str) -> Brought:
        """What the file wrote.

        Raises:
            ConfigError: for something else, a part of it, or the measurements of another study or of another device
                than the blocks' latencies are of.
        """
        delimiter = _delimiter(text)
        try:
            rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
        except csv.Error as error:
            raise ConfigError(source, error, "the file that was written there") from None
        if without := [name for name in NEEDED if not rows or name not in rows[0]]:
            lacks = f" without {', '.join(without)}" if 0 < len(without) < len(NEEDED) else ""
            found = f"{counted(len(rows), 'row')}{lacks}"
            raise ConfigError(source, found, f"the columns {', '.join(NEEDED)}, as the file writes them")
        if any(row[name] is None for row in rows for name in NEEDED):
            raise ConfigError(source, "a row that is cut off", "the whole file that was written there")
        if others := {row["asked"] for row in rows} - {self.asked}:
            expected = f"measurements for this study ({self.asked})"
            raise ConfigError(source, f"measurements for another ({', '.join(sorted(others))})", expected)
        for name in ("purpose", "device"):
            if len(several := {row[name] for row in rows}) > 1:
                raise ConfigError(source, f"{name} {', '.join(sorted(several))}", f"one {name}, as of one measurement")
        purpose: Purpose | None = next((each for each in get_args(Purpose) if each == rows[0]["purpose"]), None)
        if purpose is None:
            raise ConfigError(source, f"purpose {rows[0]['purpose']}", f"one of {', '.join(get_args(Purpose))}")
        device, of_blocks = rows[0]["device"], {row.device for row in self.study.costs(LATENCY)}
        if purpose == "whole" and of_blocks and device not in of_blocks:
            expected = f"device {', '.join(of_blocks)}, which the blocks were measured on"
            advice = "Of the same machine by another name, `--device NAME` gives the file its name there."
            raise ConfigError(source, f"device {device}", expected, advice)
        self._check_how(rows, source)
        point = "." if delimiter == "," else ","  # of decimals: where it is a comma, something else is between columns
        try:
            networks = {self.study.space.parse(row["genotype"]): _measured(row, point) for row in rows}
        except SpaceError as error:
            raise ConfigError(source, error, "genotypes as the file writes them") from None
        except ValueError as error:
            raise ConfigError(source, error, "times above 0 in the columns ms, spread_ms and repeats") from None
        own = networks.get(self.base if purpose == "blocks" else self.study.base)
        if isinstance(own, Exception):
            if missing := MISSING.match(str(own)):
                advice = "Install it there, or use a Python there that has it: `--host` runs the one of `--python`."
                raise ConfigError(source, f"{missing[1]} is missing there", "what runs the networks", advice)
            found = f"the base network failed there: {own}"
            raise ConfigError(source, found, "a machine that runs it, since percentages are of what it takes")
        if len(networks) < len(rows):
            found = f"{len(rows)} rows of {len(networks)} networks"
            raise ConfigError(source, found, "one row of each network, as the file writes them")
        if purpose == "blocks" and (absent := [each for each in self._of_blocks() if each not in networks]):
            found = f"no row of {len(absent)} networks, such as {absent[0]}"
            raise ConfigError(source, found, "the whole file that was written there")
        return Brought(purpose=purpose, device=device, networks=networks)

    def _check_how(self, rows: Sequence[dict[str, str]], source: str) -> None:
        """Raises ConfigError for rows of another batch size or number of threads than the study's profile has."""
        asked = [str(getattr(self.profiler.settings, name)) for name in HOW]

        def in_words(values: Sequence[str]) -> str:
            return ", ".join(f"{name} {value}" for name, value in zip(HOW, values, strict=True))

        if other := next((found for row in rows if (found := [row[name] for name in HOW]) != asked), None):
            raise ConfigError(source, in_words(other), f"{in_words(asked)}, as the study's profile has them")

    def take(self, brought: Brought) -> str:
        """Store what was brought; returns what that means, a sentence."""
        return self._take_blocks(brought) if brought.purpose == "blocks" else self._take_whole(brought)

    def _writer(self, brought: Brought) -> RowWriter:
        return RowWriter(profiler=self.profiler, family=self.study.family, device=brought.device)

    def _take_blocks(self, brought: Brought) -> str:
        from nas_core.costs.timing import fitted_blocks

        of_sample = {genotype: brought.networks[genotype] for genotype in self.sample if genotype in brought.networks}
        fitted = {genotype: brought.networks[genotype] for genotype in self._of_blocks()}
        if not any(isinstance(each, Measurement) for each in fitted.values()):
            first = next(iter(brought.networks.values()), "no rows")
            raise NasError("measurements", f"none that succeeded ({first})", "networks that run there")
        fixed, blocks = fitted_blocks(self.study.family, fitted)
        writer, (size,) = self._writer(brought), self.study.space.resolutions
        rows: list[Cost] = [writer.fixed_part(size, LATENCY, fixed)]
        rows += [writer.block(block, size, LATENCY, measured) for block, measured in blocks.items()]
        rows += [writer.network(genotype, LATENCY, measured) for genotype, measured in of_sample.items()]
        before = self._prices()
        self.study.store.replace_costs(rows)
        self.study.refresh()
        is_other = bool(before) and before != self._prices()
        if is_other:  # what was chosen by them says nothing any more
            self.study.outputs.forget("select")
            self.study.refresh()
        failed = sum(isinstance(each, Exception) for each in brought.networks.values())
        priced = sum(isinstance(each, Measurement) for each in blocks.values())
        said = f"{len(brought.networks)} networks measured on {brought.device}"
        again = " These are others than before: `mathnas run` chooses again." if is_other else ""
        return f"{said}{f', {failed} failed' if failed else ''}: {priced} blocks have their price.{again}"

    def _prices(self) -> dict[tuple[Any, ...], float | None]:
        return {(row.position, row.choice, row.genotype): row.value for row in self.study.costs(LATENCY)}

    def _take_whole(self, brought: Brought) -> str:
        writer, study = self._writer(brought), self.study
        chosen = verification(study.outputs)["winner"]
        if chosen is None:
            raise NasError(
                study.store.root, "no chosen network", "one that was measured whole", "`mathnas run` goes on."
            )
        for what, genotype in (("base", study.base), ("chosen", Genotype.parse(chosen))):
            measured = brought.networks.get(genotype)
            if not isinstance(measured, Measurement):
                found = f"no row of the {what} network, {genotype}" if measured is None else f"it failed: {measured}"
                raise NasError(f"measurements: {genotype}", found, f"what the {what} network takes")
        if missing := [each for each in finalists(study.snapshot) if each not in brought.networks]:
            found = f"no row of {len(missing)} of the best networks, such as {missing[0]}"
            advice = "Where the study went on since, `mathnas measure` writes another file."
            raise NasError("measurements", found, "the whole file that was written there", advice)
        rows: list[dict[str, Any]] = [
            asdict(writer.network(genotype, LATENCY, measured)) for genotype, measured in brought.networks.items()
        ]
        retract_moves(study.outputs, rows)
        record_whole(study.outputs, rows)
        study.store.delete(record_path("report"))  # it does not show them yet
        study.refresh()
        failed = sum(row["status"] != "ok" for row in rows)
        said = (
            f"{len(rows) - failed} networks measured whole on {brought.device}{f', {failed} failed' if failed else ''}"
        )
        if not move_limits(study.snapshot, study.outputs):
            study.refresh()
            return f"{said}: {chosen_in_words(study.snapshot, study.outputs)}"
        study.store.delete(record_path("verify"))
        study.refresh()
        return f"{said}: the limit moves to where the chosen one meets it; `mathnas run` chooses again."


def _delimiter(text: str) -> str:
    """What stands between columns: spreadsheets may save a semicolon, or a tab."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _measured(row: dict[str, str], point: str) -> Measured:
    if row["status"] != "ok":
        return RuntimeError(row["message"] or f"status {row['status']}")
    ms, spread = (float(row[name].replace(point, ".")) for name in ("ms", "spread_ms"))
    repeats = int(row["repeats"])
    if not (0 < ms < math.inf and 0 <= spread < math.inf and repeats > 0):
        raise ValueError(f"{ms:g} ms, spread {spread:g} ms, {repeats} repeats of {row['genotype']}")
    return Measurement(value=ms, spread=spread, num_repeats=repeats)
