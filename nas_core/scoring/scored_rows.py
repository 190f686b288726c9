"""Evaluation rows of one scorer: what all of them share is said once."""

from dataclasses import dataclass

from nas_core.records.evaluations import Evaluation
from nas_core.space.genotypes import Genotype

MAX_MESSAGE = 500  # characters of an exception kept in a row


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Makes the rows of one scorer in one study."""

    space_id: str
    scorer_id: str
    seed: int
    metric_name: str
    higher_is_better: bool
    split: str
    device: str

    def ok(self, genotype: Genotype, metric: float, num_examples: int, wall_s: float, message: str = "") -> Evaluation:
        return self._row(genotype, metric, num_examples, wall_s, message)

    def failed(self, genotype: Genotype, error: BaseException | str, wall_s: float) -> Evaluation:
        """A row without a metric; the message is the error's type and text."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        return self._row(genotype, None, 0, wall_s, text.replace("\n", " ")[:MAX_MESSAGE])

    def _row(
        self, genotype: Genotype, metric: float | None, num_examples: int, wall_s: float, message: str
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
