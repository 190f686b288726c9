"""Scorers rate networks: one protocol, one file per scorer, chosen by ``scorer.kind`` of the configuration.

No torch here: `study_scorer_id` is asked for by commands that only read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nas_core.base.identity import content_id
from nas_core.records.evaluations import Evaluation
from nas_core.space.genotypes import Genotype, SearchSpace

if TYPE_CHECKING:
    from nas_core.records.store import Store
    from nas_core.study.config import StudyConfig

OnProgress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done

# Raised when a scorer's code changes what it measures: rows of another version are not reused.
VERSIONS = {"train": 1, "supernet": 2, "tabular": 1}


class Scorer(Protocol):
    """Rates networks of one space for one study.

    ``metric_name`` carries the unit, ``split`` the data the metric is measured on.
    """

    metric_name: str
    higher_is_better: bool
    split: str

    @property
    def prepared(self) -> bool:
        """Whether ``evaluate`` can be called."""
        ...

    def prepare(self, on_progress: OnProgress) -> None:
        """What has to happen once before any network is rated; returns at once where nothing is left to do.

        Wrong settings or missing files raise a NasError here, before compute is spent.
        """
        ...

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Evaluation]:
        """One row per genotype, in order; one that fails is a row with its message, the rest goes on."""
        ...


def scorer_id(config: "StudyConfig", version: int) -> str:
    """Id of the scorer's settings, data and code version; tabular scores do not depend on images.

    How many networks share a Ray task, or run side by side, changes no score.
    """
    settings = config.scorer.model_dump(mode="json", exclude={"batch", "side_by_side", "eval_batch_size"})
    if config.scorer.kind == "tabular":  # where the table lies does not matter, nor do images
        settings["path"] = Path(config.scorer.path).name
    data = {} if config.scorer.kind == "tabular" else config.data.identity
    return content_id({"scorer": settings, "data": data, "version": version})


def study_scorer_id(config: "StudyConfig") -> str:
    """Id of the study's scorer: its settings, its data and the version of its code."""
    return scorer_id(config, VERSIONS[config.scorer.kind])


def supernet_path(config: "StudyConfig", space_id: str) -> str:
    """Where in the store a study's shared weights are, once they are trained."""
    return f"scorers/{study_scorer_id(config)}/{space_id}/supernet-s{config.seed}.safetensors"


def build_scorer(config: "StudyConfig", space: SearchSpace, store: "Store", device: str = "auto") -> Scorer:
    """The scorer that the configuration asks for; loads nothing yet.

    ``device`` is ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
    """
    # Imported here: only the scorer in use, and torch only for those that need it.
    match config.scorer.kind:
        case "train":
            from nas_core.scoring.train import TrainScorer

            return TrainScorer(config, space, device)
        case "supernet":
            from nas_core.scoring.supernet import SupernetScorer

            return SupernetScorer(config, space, store, device)
        case "tabular":
            from nas_core.scoring.tabular import TabularScorer

            return TabularScorer(config, space)


def check_scorer(config: "StudyConfig", space: SearchSpace, stored: Sequence[Evaluation] = ()) -> None:
    """What a scorer needs beside images, checked before compute is spent: a table that fits the space.

    Raises:
        DataError: if the table, one of its columns, or its networks are not what is asked for, or if it says
            something else of a network than what is ``stored``.
    """
    if config.scorer.kind == "tabular":
        from nas_core.scoring.tabular import check_stored, read_metrics

        check_stored(stored, read_metrics(config.scorer, space), config.scorer)
