"""The protocol of scorers, what they are given, and the rows they write. No torch here."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nas_core.base.identity import content_id
from nas_core.base.registry import Registered, Registry
from nas_core.base.settings import Section
from nas_core.families.family import Family
from nas_core.records.evaluations import CostTable, Evaluation
from nas_core.records.store import Store
from nas_core.space.genotypes import Genotype, SearchSpace
from nas_core.workloads.metrics import Measure
from nas_core.workloads.workload import Workload, metric_of

if TYPE_CHECKING:
    import torch

OnProgress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done
MAX_MESSAGE = 500  # characters of an exception kept in a row


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a scorer is given beside its own settings.

    ``metric`` is the name that the study asks for, "" for the first of those
    there are; ``device`` is ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
    ``known_as`` is the scorer's id as its study knows it, "" where that is still to be found.
    """

    family: Family
    workload: Workload
    store: Store | None  # None where nothing is read or written: for an estimate
    seed: int
    metric: str = ""
    device: str = "auto"
    known_as: str = ""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What networks do for their scores, in examples that run through one; a trained one also runs backward."""

    first_trained: float = 0.0  # once, before any network is rated
    each_trained: float = 0.0
    each_run: float = 0.0


class Scorer(Registered, ABC):
    """Rates networks of one family for one study."""

    needs_data: ClassVar[bool] = True  # whether the workload's data are looked at: they are then part of the id
    runs_networks: ClassVar[bool] = False  # on the device that it is given, which rows then name
    for_family: ClassVar[str] = ""  # the only family whose networks it rates; "" for any
    duration: ClassVar[Literal["seconds", "minutes"]] = "seconds"  # of one network: in actors that stay, or in tasks
    prepares_together: ClassVar[bool] = False  # whether processes of one torch process group may call ``prepare``
    one_by_one: ClassVar[bool] = False  # networks share nothing while they are rated
    placement: ClassVar[frozenset[str]] = frozenset({"batch"})  # settings that change no score
    space_settings: ClassVar[frozenset[str]] = frozenset()  # settings that ``known_space`` reads: the design's too
    final_settings: ClassVar[frozenset[str]] = frozenset()  # settings that ``final`` reads: the verification's too
    cuts_off_blocks: ClassVar[bool] = False  # networks reuse blocks of a trained base; others gain most from ``final``
    when_failed: ClassVar[str] = "Mend the cause, then run `mathnas score DIR --retry-failed`."  # DIR: the study's root
    split: ClassVar[str] = "validation"  # the data that the metric is measured on

    def __init__(self, settings: Section, setting: Setting) -> None:
        self.settings: Any = settings
        self.setting, self.family, self.workload = setting, setting.family, setting.workload

    @property
    def store(self) -> Store:
        """The study's store."""
        assert self.setting.store is not None, "an estimate reads no store"
        return self.setting.store

    @property
    def measure(self) -> Measure:
        """What networks are rated by: the workload's metric that the study names, or its first."""
        return metric_of(self.workload, self.setting.metric).measure

    @property
    def metric_name(self) -> str:
        return self.measure.name

    @property
    def higher_is_better(self) -> bool:
        return self.measure.higher_is_better

    @property
    def identity(self) -> dict[str, Any]:
        """What of the settings a score depends on."""
        return dict(self.settings.model_dump(mode="json", exclude={"kind", *self.placement}))

    @cached_property
    def scorer_id(self) -> str:
        """Id of settings, data, metric, code and files: rows of another id are of another scorer."""
        return self.setting.known_as or content_id(
            {
                "scorer": SCORERS.identity(self.name, self.settings, self.placement),
                "settings": self.identity,
                "data": self.workload.identity if self.needs_data else {},
                "metric": self.metric_name,
            }
        )

    @classmethod
    def known_space(cls, settings: Section, space: SearchSpace) -> SearchSpace:
        """The space, with what the scorer knows of it: which networks compute the same function, say."""
        return space

    def check(self, stored: Sequence[Evaluation] = ()) -> None:
        """What would otherwise be met later, before compute is spent; ``stored`` are this scorer's rows.

        Raises:
            NasError: with what is wrong.
        """

    def notes(self) -> Sequence[str]:
        """What people should know of how networks are rated here: sentences that a run begins with."""
        return ()

    @property
    def prepared(self) -> bool:
        """Whether ``evaluate`` can be called."""
        return True

    def prepare(self, on_progress: OnProgress) -> None:
        """What has to happen once before any network is rated; resumes, and returns at once where nothing is left."""

    @property
    def pieces(self) -> Sequence[str]:
        """What is left of ``prepare``, in pieces that workers may do side by side; none where it is one."""
        return ()

    @property
    def num_pieces(self) -> int:
        """How many pieces there were before any was done; workers share a machine's threads by that."""
        return len(self.pieces)

    def prepare_pieces(self, pieces: Sequence[str], on_progress: OnProgress) -> None:
        """Do these pieces, where there are some; resumes."""

    @abstractmethod
    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """One row per genotype, in order; one that fails is a row with its message, the rest goes on.

        Rows of other metrics that were measured on the way may follow, with the ids of the scorers that they are for.
        """

    @classmethod
    def rates_again(cls, settings: Section) -> bool:
        """Whether a scorer of these settings has a ``final`` rating."""
        return False

    @property
    def final(self) -> "Scorer | None":
        """What rates the best few networks once more, by more work each; None where there is no such rating.

        Its metric is this one's, its rows have an id of their own.
        """
        return None

    def head_start(self, flops: CostTable) -> float:
        """Multiply-adds of the training that blocks have had when ``start`` gives their weights, all of them together.

        ``flops`` are the blocks'.
        """
        return 0.0

    @property
    def starts_from(self) -> str:
        """Id of the weights that full trainings begin with; "" where they begin with fresh ones."""
        return ""

    def start(self, genotype: Genotype) -> "Mapping[str, torch.Tensor] | None":
        """The weights that the network's full training begins with; None where they are fresh."""
        return None

    def work(self) -> "Work | None":
        """What networks do here, for an estimate; None where that cannot be known."""
        return Work()

    @property
    def device_name(self) -> str:
        """What rows say of the device."""
        if not self.runs_networks:
            return ""
        from nas_core.training.loop import device_name, resolve_device

        return device_name(resolve_device(self.setting.device))

    @cached_property
    def rows(self) -> "Rows":
        """Makes this scorer's rows."""
        return Rows(
            space_id=self.family.space.space_id,
            scorer_id=self.scorer_id,
            seed=self.setting.seed,
            metric_name=self.metric_name,
            higher_is_better=self.higher_is_better,
            split=self.split,
            device=self.device_name,
        )


SCORERS = Registry[Scorer]("scorer", Scorer)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Makes the rows of one scorer in one study: what all of them share is said once."""

    space_id: str
    scorer_id: str
    seed: int
    metric_name: str
    higher_is_better: bool
    split: str
    device: str

    def of(self, genotype: Genotype, outcome: float | Exception, num_examples: int, wall_s: float) -> Evaluation:
        """The row of a metric, or of what was raised instead."""
        if isinstance(outcome, Exception):
            return self.failed(genotype, outcome, wall_s)
        if not math.isfinite(outcome):
            return self.failed(genotype, f"{self.metric_name} is {outcome}: outputs are no numbers", wall_s)
        return self.ok(genotype, outcome, num_examples, wall_s)

    def ok(self, genotype: Genotype, metric: float, num_examples: int, wall_s: float, message: str = "") -> Evaluation:
        return self._row(genotype, metric, num_examples, wall_s, message)

    def failed(self, genotype: Genotype | str, error: BaseException | str, wall_s: float) -> Evaluation:
        """A row without a metric; the message is the error's type and text."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self._row(genotype, None, 0, wall_s, text.replace("\n", " ")[:MAX_MESSAGE])

    def _row(
        self, genotype: Genotype | str, metric: float | None, num_examples: int, wall_s: float, message: str
    ) -> Evaluation:
        return Evaluation(
            space_id=self.space_id,
            scorer_id=self.scorer_id,
            genotype=str(genotype),
            seed=self.seed,
            status="failed" if metric is None else "ok",
            metric=metric,
            metric_name=self.metric_name,
            higher_is_better=self.higher_is_better,
            split=self.split,
            num_examples=num_examples,
            wall_s=wall_s,
            device=self.device,
            message=message,
        )
