"""Rivals of the winner that are no networks of its space: made of the trained model, and brought to the same limits.

And what all contestants take, measured whole in turns. No torch at import.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas_core.base.errors import NasError
from nas_core.base.identity import content_id
from nas_core.costs import profiler_of
from nas_core.costs.counts import CountsProfiler
from nas_core.costs.latency import RESOURCE as LATENCY
from nas_core.costs.profiler import Profiler
from nas_core.families.family import Part
from nas_core.families.trained_model import TrainedModel
from nas_core.program.limits import is_called, parse_limit
from nas_core.space.genotypes import Genotype
from nas_core.study.contestants import REMADE, Candidate, Remark
from nas_core.study.study import Study
from nas_core.training.settings import Baseline

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas_core.families.model.pruning import Made
    from nas_core.families.model.remade import Remade
    from nas_core.workloads.workload import Splits

log = logging.getLogger(__name__)

COUNTED = tuple(each.name for each in CountsProfiler.resources)
VERSION = 1  # raised when rivals are made differently
SAMPLES = 256  # training examples that weights are fitted to
STATISTICS_BATCH, STATISTICS_BATCHES = 128, 4  # that normalisation statistics are of
OVER = 0.01  # of a limit, within which a network is not over it
FAR = 0.1  # share of a limit left over, from which it is remarked
MOST_SAID = 300  # letters of what went wrong; the log has all of it

NO_MODEL = "It is made of a trained model, and this study has none."
NO_TORCH_PRUNING = "Torch-Pruning is not installed: pip install torch-pruning"


class Rivals:
    """What a study's winner is compared with beside networks of its space; what is made is kept in the store."""

    def __init__(self, study: Study) -> None:
        self.study, self.config, self.store = study, study.config, study.store

    @property
    def wanted(self) -> list[Baseline]:
        return [kind for kind in REMADE if kind in self.config.train.compare]

    @property
    def num_steps(self) -> int:
        """Each rival is made, then all are measured."""
        return len(self.wanted) + 1

    def found(self, tell: Callable[[int, int, str], object]) -> Iterator[Candidate | Remark]:
        """The rivals asked for, each made where the store has none; or why there is none."""
        for done, kind in enumerate(self.wanted):
            tell(done, self.num_steps, kind)
            if not isinstance(self.study.family, TrainedModel):
                yield Remark(role=kind, text=NO_MODEL)
                continue
            try:
                known = self._kept(kind)
            except ImportError:
                yield Remark(role=kind, text=NO_TORCH_PRUNING)
                continue
            except NasError as error:
                yield Remark(role=kind, text=f"There is none: {error.found}.")
                continue
            except Exception as error:  # what others do with a model of any make must not cost the winner its training
                log.exception("no rival by %s", kind)
                said = (str(error).strip() or "nothing said").splitlines()[0]  # torch adds whole graphs
                yield Remark(role=kind, text=f"It could not be made: {type(error).__name__}: {said}"[:MOST_SAID])
                continue
            yield Candidate(name=kind, role=kind, genotype=known["label"], remade=self._path(kind))
            if known["used"] > 1 + OVER or (kind != "sibling" and known["used"] <= 1 - FAR):
                yield Remark(role=kind, text=f"Measured whole, it takes {known['used']:.2f} of the limit.")
            if unseen := [text for text in self.config.select.limits if not _is_seen(text)]:
                yield Remark(role=kind, text=f"What it takes is not known of {', '.join(unseen)}.")

    def _path(self, kind: str) -> str:
        """Where in the store a rival is, without the suffix: by all that it depends on."""
        known = {
            "version": VERSION,
            "space": self.study.space.space_id,
            "limits": list(self.config.select.limits),
            "base": str(self.study.base),  # of which percentages are
            "profilers": dict(self.study.profiler_ids),
            "data": self.study.scorer.workload.identity,
        }
        return f"rivals/{kind}-{content_id(known)}"

    def _kept(self, kind: Baseline) -> Mapping[str, Any]:
        """The stored description; made first where there is none."""
        path = f"{self._path(kind)}.json"
        if not self.store.exists(path):
            remade, weights, used = self._sibling() if kind == "sibling" else self._smaller(kind)
            if weights is not None:
                self.store.write_bytes(f"{self._path(kind)}.safetensors", weights)
            self.store.write_json(path, {**remade.as_dict(), "used": used})
        return dict(self.store.read_json(path))

    # what is made

    @property
    def family(self) -> TrainedModel:
        family = self.study.family
        assert isinstance(family, TrainedModel), "asked for before"
        return family

    def _smaller(self, kind: Baseline) -> "tuple[Remade, bytes, float]":
        """The model with the same share of everything, the largest within the limits."""
        from nas_core.families.model.pruning import nearest, recalibrated, shapes_beside
        from nas_core.families.model.rebuild import changed
        from nas_core.families.model.remade import Remade
        from nas_core.training.checkpoint import pack

        share = nearest(lambda share: self._made(kind, share, fitted=False).network, self.used)
        made = self._made(kind, share, fitted=True)
        network = recalibrated(made.network, self._batches)
        fresh = changed(copy.deepcopy(self.family.structure.network), made.changes)
        remade = Remade(
            family=self.family,
            label=f"{kind} {share:.3g}",
            changes=made.changes,
            shapes=shapes_beside(network, fresh),
        )
        return remade, pack(network.state_dict()), self.used(network)

    def _made(self, kind: Baseline, share: float, *, fitted: bool) -> "Made":
        from nas_core.families.model.pruning import narrowed, pruned

        teacher = self.family.teacher
        if kind == "torch_pruning":
            return pruned(teacher, share, self._samples)
        return narrowed(teacher, self.family.teacher_places, share, self._samples, fitted=fitted)

    def _sibling(self) -> "tuple[Remade, None, float]":
        """The largest sibling within the limits, the smallest where none is; its weights are fresh.

        Raises:
            NasError: for a model without a smaller sibling.
        """
        from nas_core.families.model.pruning import siblings
        from nas_core.families.model.remade import Remade

        reference = self.family.reference
        if not reference.is_timm:
            raise NasError("sibling", "the model is none of timm's", "a model of timm's")
        names = siblings(reference.model.removeprefix("timm:"))
        most, smaller = self.study.flops.total(self.study.base), dict[str, float]()
        for name in names:
            made = Remade(family=self.family, label=f"timm:{name}", instead=f"timm:{name}")
            try:
                flops = self._counts(made.module).flops
            except Exception as error:  # one that does not take these images, say
                log.warning("%s is left out: %s", name, " ".join(str(error).split())[:200])
                continue
            if flops < most:
                smaller[name] = flops
        for name in sorted(smaller, key=lambda name: -smaller[name]):
            made = Remade(family=self.family, label=f"timm:{name}", instead=f"timm:{name}")
            used = self.used(made.module())
            if used <= 1:
                break
        if not smaller:
            raise NasError("sibling", "timm has no smaller model that is named like this one", "a smaller one")
        return made, None, used

    @cached_property
    def _batches(self) -> "list[Tensor]":
        """Prepared training examples that normalisation statistics are of."""
        return self._prepared(STATISTICS_BATCH * STATISTICS_BATCHES, STATISTICS_BATCH)

    @cached_property
    def _samples(self) -> "Tensor":
        """Prepared training examples that weights are fitted to."""
        (batch,) = self._prepared(SAMPLES, SAMPLES)
        return batch

    def _prepared(self, count: int, batch_size: int) -> "list[Tensor]":
        from nas_core.workloads.examples import batches_of

        inputs = self._splits.train[0][:count]
        return [self._splits.prepare(batch) for batch in batches_of(inputs, batch_size)]

    @cached_property
    def _splits(self) -> "Splits":
        return self.study.scorer.workload.load(self.family.sample.shape)

    # what it takes

    @property
    def _profiler(self) -> Profiler:
        return profiler_of(LATENCY, self.config.profile)

    def used(self, network: "nn.Module") -> float:
        """The largest share of an upper limit that the network takes, whole.

        Latency is measured in turns with the base network, and a percentage is of what that takes then.

        Raises:
            NasError: without a limit that can be looked at, or where latency is measured elsewhere.
        """
        base, shares = self.study.costs_of(self.study.base), list[float]()
        counts = self._counts(lambda: copy.deepcopy(network))
        for text in self.config.select.limits:
            limit = parse_limit(text)
            most = limit.resolve(base)
            if most.at_most is None or limit.at_most is None:
                continue
            if most.resource in COUNTED:
                shares.append(counts[most.resource] / most.at_most)
            elif most.resource == LATENCY and not self._profiler.measures_here:
                raise NasError("latency", "latency is measured elsewhere", "a measurement")
            elif most.resource == LATENCY:
                ms, own = self._timed(network)
                relative = limit.at_most.unit == "%"
                shares.append(ms / (own * most.at_most / base[LATENCY]) if relative else ms / most.at_most)
        if not shares:
            expected = f"a limit on {', '.join(COUNTED)} or {LATENCY}"
            raise NasError("limits", "no limit from above on what a network of no space can be asked for", expected)
        return max(shares)

    def _counts(self, build: "Callable[[], nn.Module]") -> Any:
        from nas_core.costs.counting import count_module

        return count_module(build, self.family.sample.shape, dtype=self.family.sample.dtype)

    def _timed(self, network: "nn.Module") -> tuple[float, float]:
        """Milliseconds of the network, and of the base in turns with it."""
        from nas_core.costs.timing import network_part

        part = self._part("rival", lambda: copy.deepcopy(network))
        base, mine = self._measured([network_part(self.family, self.study.base), part])
        return mine, base

    def _part(self, key: str, build: "Callable[[], nn.Module]") -> Part:
        from nas_core.costs.timing import whole_part

        sample = self.study.family.sample
        return whole_part(key, sample.shape, sample.dtype, build)

    def _measured(self, parts: Sequence[Part]) -> list[float]:
        from nas_core.costs.timing import time_networks

        found = time_networks(parts, self._profiler.settings)
        for each in found:
            if isinstance(each, Exception):
                raise each
        return [each.value for each in found if not isinstance(each, Exception)]

    # of all that are compared

    def costs_of(self, candidate: Candidate) -> dict[str, float]:
        """What the study knows of a network of its space; of one that is none its counts."""
        if not candidate.remade:
            return self.study.costs_of(Genotype.parse(candidate.genotype))
        counts = self._counts(self.remade(candidate.remade).module)
        return {name: float(counts[name]) for name in self.study.profiler_ids if name in COUNTED}

    def whole(self, candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
        """Name -> milliseconds of every candidate, whole, all in turns; nothing where the study measures no latency."""
        if LATENCY not in self.study.profiler_ids or not self._profiler.measures_here:
            return {}
        from nas_core.costs.timing import network_part

        family = self.study.family
        parts = [
            self._part(each.remade, self.remade(each.remade).module)
            if each.remade
            else network_part(family, Genotype.parse(each.genotype))
            for each in candidates
        ]
        return {each.name: {LATENCY: ms} for each, ms in zip(candidates, self._measured(parts), strict=True)}

    def remade(self, path: str) -> "Remade":
        """The rival described at this path of the store."""
        from nas_core.families.model.remade import Remade

        return replace(Remade.from_dict(self.store.read_json(f"{path}.json")), family=self.family)


def _is_seen(text: str) -> bool:
    """Whether a network that is none of the space can be held against this limit, or need not be."""
    limit = parse_limit(text)
    return limit.at_most is None or any(is_called(known, limit.resource) for known in (*COUNTED, LATENCY))
