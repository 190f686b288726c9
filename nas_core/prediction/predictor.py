"""Fits a predictor of the metric to evaluated networks, choosing link, exponent, pairs and ridge by cross-validation.

Everything is tried on the scale of ranks, which links share: an alternative's
score is the share of the variance of the networks' normal scores that
leave-one-group-out predictions explain (1 is perfect, 0 is guessing the mean).
Groups are networks that compute the same function, so none straddles a split.
A network counts for validation only if each of its blocks occurs in other networks
that count; otherwise its error reflects a guess about an unseen block. One-swap designs
have no such networks. Where there are too few, held-out networks count beside them.

Axes: K fitted networks, H held-out ones, T those that count, N any networks, D one-hot columns (``encoding``).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np

from nas_core.base.errors import ConfigError, IncompleteTableError
from nas_core.prediction.gaussian_process import Fitted, Kernel, Regression, cross_validate, regress
from nas_core.prediction.links import Link, LinkName, make_link, normal_scores, possible_links
from nas_core.prediction.observations import Observations, observe
from nas_core.prediction.settings import LEAST_NETWORKS, PredictConfig
from nas_core.program import Budget, Objective, SelectionProblem, Table
from nas_core.program.problem import Pair, Ragged
from nas_core.records.evaluations import CostTable, EvaluationTable
from nas_core.space.encoding import Encoding
from nas_core.space.genotypes import Genotype, SearchSpace

COVERAGE = 0.9  # of every interval
LEAST_TELLING = 6  # fitted networks that count; where they are fewer, held-out ones do, too
PAIR_WEIGHTS = (0.0, 0.6)  # rho in k = h + rho h^2
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # ridge, as a share of the signal variance
SHARED = (0.0, 0.3, 0.6)  # tau: how much of a block's effect is common to all positions
SMOOTH = (0.0, 0.5, 0.95)  # sigma: how much of a block's effect neighbours in an ordered position have in common
BOOTSTRAPS = 200
FITTED_WORTH = 2  # held-out networks that the fitted ones count for when the intervals' scale is set
EXPONENTS = (0.0, 0.3, 1.0)  # p in (Fbar / F)^p
MOST_WRONG = 1e6  # normal score that a guess far beyond all metrics has at most: its square is a number
NOTHING_EXPLAINED = 1e-3  # what pairs are worth that predict no better than the mean
EXPONENT_WORTH = 0.8  # of the unexplained variance at most it may leave: it inflates small networks


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The metric expected of a network, in the metric's own unit and sign, and its 90 % interval."""

    genotype: Genotype
    metric: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One setting of the predictor and how well it predicts networks left out of its fit.

    ``score`` is the R2 on normal scores (1 is perfect), ``spearman`` the rank
    correlation; ``chosen`` marks the one in use. ``shared`` is how much of a block's
    effect is common to the positions that offer it, ``smooth`` how much to the
    neighbours in an ordered position.
    """

    link: LinkName
    exponent: float
    pairs: float
    ridge: float
    shared: float
    score: float
    spearman: float
    smooth: float = 0.0
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class BlockEffect:
    """What a block does to the metric in place of the base's block, all else as in the base.

    ``effect`` is metric(with this block) - metric(with the base's block), in
    the metric's own unit and sign; [low, high] is its 90 % interval.
    ``num_evaluations`` counts the evaluated networks that hold the block,
    ``contexts`` the evaluated pairs that differ in nothing but these two blocks.
    """

    position: int
    choice: int
    effect: float
    low: float
    high: float
    base: str
    contexts: int
    num_evaluations: int
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class ScoreTerms:
    """The predictor as a selection program in link units: maximising it maximises the predicted metric.

    link value = base_score + (sum of scores + sum of pair terms) x (reference / FLOPs)^exponent.
    One (score, base_score) per resolution; the key is None where the space has one.
    """

    score: Mapping[int | None, Ragged]
    base_score: Mapping[int | None, float]
    pairs: Mapping[Pair, float]
    exponent: float
    reference: float | None

    def value(self, genotype: Genotype, flops: float | None = None) -> float:
        """Link value of one network; ``flops`` is needed where the exponent is not 0."""
        rows = self.score[genotype.resolution]
        total = sum(row[choice] for row, choice in zip(rows, genotype.choices, strict=True))
        taken = set(enumerate(genotype.choices))
        total += sum(value for (a, b), value in self.pairs.items() if a in taken and b in taken)
        if self.exponent:
            assert flops is not None
            assert self.reference is not None
            total *= (self.reference / flops) ** self.exponent
        return self.base_score[genotype.resolution] + total


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A held-out network's prediction, by the settings that were chosen without it: a link value and its sd."""

    link: Link
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A fitted predictor. See ``fit``.

    ``quantile`` multiplies a standard deviation into half a 90 % interval; it
    is taken from the left-out residuals, so that intervals cover what they say.
    ``residual_K`` are those of the fitted networks, in standard deviations,
    without their sign, stretched so that ``quantile`` is their conformal one.
    ``apart`` is of the held-out networks that had a say in the choice of the alternative.
    """

    space: SearchSpace
    base: Genotype
    table: EvaluationTable
    link: Link
    regression: Regression
    exponent: float
    flops: CostTable | None
    reference: float | None
    quantile: float
    residual_K: np.ndarray
    selection: tuple[Alternative, ...]
    apart: Mapping[Genotype, Apart] = field(default_factory=dict)

    @property
    def chosen(self) -> Alternative:
        return next(alternative for alternative in self.selection if alternative.chosen)

    @property
    def encoding(self) -> Encoding:
        return self.regression.encoding

    def scale(self, codes_NP: np.ndarray) -> np.ndarray:
        """(Fbar / F)^p of networks."""
        return flops_scale(self.flops, self.reference, self.exponent, codes_NP)

    def link_values(self, codes_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted link value of networks and the standard deviation of a measurement of it."""
        return self.regression.predict_measured(self.encoding.one_hot(codes_NP), self.scale(codes_NP))

    def predict(self, genotypes: Iterable[Genotype]) -> list[Prediction]:
        """The metric expected of each network with its 90 % interval."""
        listed = [self.space.check_choices(genotype) for genotype in genotypes]
        if not listed:
            return []
        columns = self.predict_codes(self.encoding.encode(listed))
        return [
            Prediction(genotype=genotype, metric=float(metric), low=float(low), high=float(high))
            for genotype, metric, low, high in zip(listed, *columns, strict=True)
        ]

    def predict_codes(self, codes_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Metric, low and high end of the interval for rows of choices (``encoding``)."""
        mean_N, sd_N = self.link_values(codes_NP)
        half_N = self.quantile * sd_N
        ends = np.sort(np.stack([self._metric(mean_N - half_N), self._metric(mean_N + half_N)]), axis=0)
        return self._metric(mean_N), ends[0], ends[1]

    def recalibrated(self, held_out: EvaluationTable) -> "Predictor":
        """This predictor with intervals as wide as these networks, which it was not fitted to, show they must be.

        Where the networks to predict are unlike those fitted (random ones after
        a one-swap design), residuals of left-out fitted networks flatter. But
        held-out networks are few, and the 90 % quantile of few is their worst.
        So these set the scale of the residuals, the fitted ones lend them their
        shape, and the interval is the conformal quantile of both.
        """
        return replace(self, quantile=pooled_quantile(self.residual_K, self._residuals(held_out)))

    def quantiles_apart(self, held_out: EvaluationTable) -> np.ndarray:
        """Of each of these networks, the quantile that ``recalibrated`` would take from the others."""
        residual_N = self._residuals(held_out)
        others = (np.delete(residual_N, index) for index in range(len(residual_N)))
        return np.array([pooled_quantile(self.residual_K, residual) for residual in others])

    def _residuals(self, held_out: EvaluationTable) -> np.ndarray:
        """How far networks are from their predictions, in standard deviations."""
        found = [self._apart(genotype) for genotype in held_out.genotypes]
        return np.array([
            abs(float(each.link.forward(np.array([metric]))[0]) - each.mean) / each.sd
            for each, metric in zip(found, held_out.metric_K, strict=True)
        ])  # fmt: skip

    def _apart(self, genotype: Genotype) -> Apart:
        if genotype in self.apart:
            return self.apart[genotype]
        mean_1, sd_1 = self.link_values(self.encoding.encode([genotype]))
        return Apart(link=self.link, mean=float(mean_1[0]), sd=float(sd_1[0]))

    def predict_apart(self, held_out: EvaluationTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As ``predict_codes`` for held-out networks, each by the choices and the quantile that the others make."""
        quantile_N = self.quantiles_apart(held_out) if len(held_out) > 1 else np.array([self.quantile])
        found = [self._apart(genotype) for genotype in held_out.genotypes]
        ends_N3 = np.array([
            each.link.inverse(each.mean + quantile * each.sd * np.array([0.0, -1.0, 1.0]))
            for each, quantile in zip(found, quantile_N, strict=True)
        ])  # fmt: skip
        metric_N3 = self.table.sign * ends_N3
        return metric_N3[:, 0], metric_N3[:, 1:].min(axis=1), metric_N3[:, 1:].max(axis=1)

    def to_metric(self, link_value: float) -> float:
        """The metric, in its own unit and sign, of a link value such as a selection's objective."""
        return float(self._metric(np.array([link_value]))[0])

    def _metric(self, value_N: np.ndarray) -> np.ndarray:
        return self.table.sign * self.link.inverse(value_N)

    def score_terms(self) -> ScoreTerms:
        """The scores a selection program maximises; see ``ScoreTerms``."""
        score_D, pair_DD = self.regression.terms
        places, origin_D = len(self.space.num_choices), self.regression.origin_D
        # z = x - origin: the base's entries are subtracted, which keeps one score per block.
        shifted_P = np.add.reduceat(score_D * origin_D, self.encoding.offsets)
        ragged = [
            tuple(score_D[o : o + n] - shifted_P[p])
            for p, (o, n) in enumerate(zip(self.encoding.offsets, self.encoding.sizes, strict=True))
        ]
        pairs = {
            ((p, i), (q, j)): float(pair_DD[self.encoding.offsets[p] + i, self.encoding.offsets[q] + j])
            for p, q in itertools.combinations(range(places), 2)
            for i in range(self.encoding.sizes[p])
            for j in range(self.encoding.sizes[q])
        }
        score: dict[int | None, Ragged] = {}
        base_score: dict[int | None, float] = {}
        for index, resolution in enumerate(self.encoding.resolutions or (None,)):
            column = int(self.encoding.offsets[-1]) + index
            own = [
                tuple(
                    float(value + (pair_DD[column, self.encoding.offsets[p] + c] if resolution else 0.0))
                    for c, value in enumerate(ragged[p])
                )
                for p in range(places)
            ]
            score[resolution] = tuple(own)
            base_score[resolution] = self.regression.mean + (float(ragged[-1][index]) if resolution else 0.0)
        return ScoreTerms(
            score=score,
            base_score=base_score,
            pairs=pairs if self.regression.kernel.pairs else {},
            exponent=self.exponent,
            reference=self.reference if self.exponent else None,
        )

    def problem(
        self,
        costs: Sequence[CostTable] = (),
        budgets: Sequence[Budget] = (),
        forbidden: Sequence[Genotype] = (),
    ) -> SelectionProblem:
        """The program whose optimum is the best predicted network within the budgets.

        ``costs`` holds a table per resource (and per resolution, where the space
        has several). An exponent above 0 adds the resource ``flops``.
        """
        terms = self.score_terms()
        tables = []
        for resolution, score in terms.score.items():
            mine = {table.resource: table for table in costs if resolution in (None, table.resolution)}
            if terms.exponent and self.flops is not None:
                mine.setdefault("flops", self.flops)
            tables.append(
                Table(
                    score=score,
                    base_score=terms.base_score[resolution],
                    costs={name: table.block for name, table in mine.items()},
                    base_costs={name: table.fixed for name, table in mine.items()},
                    resolution=resolution,
                )
            )
        objective = (
            Objective(kind="fractional", resource="flops", reference=terms.reference, exponent=terms.exponent)
            if terms.exponent
            else Objective()
        )
        shared = {
            "budgets": tuple(budgets),
            "rules": self.space.rules,
            "objective": objective,
            "forbidden": tuple(forbidden),
            "pairs": terms.pairs,
            "positions": tuple(position.name for position in self.space.positions),
        }
        if len(tables) > 1:
            return SelectionProblem(resolutions=tuple(tables), **shared)  # type: ignore[arg-type]
        only = tables[0]
        return SelectionProblem(
            score=only.score,
            base_score=only.base_score,
            costs=only.costs,
            base_costs=only.base_costs,
            **shared,  # type: ignore[arg-type]
        )

    def effects(self) -> list[BlockEffect]:
        """The effect of every block in place of the base's, position by position; the base's own blocks at 0."""
        return [
            self._effect(position, choice)
            for position, count in enumerate(self.space.num_choices)
            for choice in range(count)
        ]

    def _effect(self, position: int, choice: int) -> BlockEffect:
        codes_2P = self.encoding.encode([self.base, self.base.swap(position, choice)])
        x_2D, scale_2 = self.encoding.one_hot(codes_2P), self.scale(codes_2P)
        value_2, _ = self.regression.predict(x_2D, scale_2)
        covariance_22 = self.regression.covariance(x_2D, scale_2)
        sd = float(np.sqrt(max(covariance_22[0, 0] + covariance_22[1, 1] - 2 * covariance_22[0, 1], 0.0)))
        if choice == self.base.choices[position]:
            sd = 0.0
        ends = self.quantile * sd * np.array([0.0, -1.0, 1.0])
        with_block, low, high = self._metric(value_2[1] + ends) - self._metric(value_2[:1])[0]
        return BlockEffect(
            position=position,
            choice=choice,
            effect=float(with_block),
            low=float(min(low, high)),
            high=float(max(low, high)),
            base=str(self.base),
            contexts=self._num_contexts(position, choice),
            num_evaluations=sum(g.choices[position] == choice for g in self.table.genotypes),
            higher_is_better=self.table.sign > 0,
        )

    @cached_property
    def _evaluated(self) -> frozenset[Genotype]:
        return frozenset(self.table.genotypes)

    def _num_contexts(self, position: int, choice: int) -> int:
        base_choice = self.base.choices[position]
        if choice == base_choice:
            return sum(genotype.choices[position] == choice for genotype in self.table.genotypes)
        return sum(
            genotype.choices[position] == choice and genotype.swap(position, base_choice) in self._evaluated
            for genotype in self.table.genotypes
        )


def flops_scale(flops: CostTable | None, reference: float | None, exponent: float, codes_NP: np.ndarray) -> np.ndarray:
    """(Fbar / F)^p per network; ones where p is 0."""
    if exponent == 0:
        return np.ones(len(codes_NP))
    assert flops is not None
    assert reference is not None
    return np.asarray((reference / flops.totals(codes_NP)) ** exponent)


def least_flops(flops: CostTable) -> float:
    """FLOPs of the cheapest network, rules not applied; 0 where what is chosen is no network."""
    return flops.fixed + sum(min(row) for row in flops.block)


def mean_flops(flops: CostTable) -> float:
    """Fbar: the mean FLOPs over all networks of the space, multiply-adds."""
    return flops.fixed + sum(float(np.mean(row)) for row in flops.block)


def _prepare(seen: Observations, exponent: float, base: Genotype, flops: CostTable | None) -> Fitted:
    """The observations with the FLOPs scale of an exponent; with one above 0, blocks count against the base's."""
    if exponent == 0:
        return seen.prepared()
    reference = mean_flops(flops) if flops is not None else None
    return replace(
        seen.prepared(),
        scale_K=flops_scale(flops, reference, exponent, seen.codes_KP),
        origin_D=seen.encoding.one_hot(seen.encoding.encode([base]))[0],
    )


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One alternative, fitted and cross-validated."""

    alternative: Alternative
    link: Link
    regression: Regression
    z_K: np.ndarray  # left-out residuals in standard deviations, of the evaluated rows
    z_T: np.ndarray  # of the networks that count
    error_T: np.ndarray  # squared, on normal scores
    mean_H: np.ndarray
    sd_H: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Judges:
    """What alternatives are judged by: fitted networks that count when they are left out, then those held out."""

    seen: Observations
    counts_K: np.ndarray  # which rows count
    held_out: Sequence[Genotype]
    codes_HP: np.ndarray
    metric_H: np.ndarray
    metric_T: np.ndarray
    ranks: Link

    @classmethod
    def of(cls, seen: Observations, held_out: EvaluationTable | None) -> "_Judges":
        telling_K = _telling(seen)
        needed = held_out if telling_K.sum() < LEAST_TELLING else None
        metric_H = needed.metric_K if needed is not None else np.zeros(0)
        genotypes = needed.genotypes if needed is not None else ()
        counts_K = telling_K if telling_K.sum() + len(metric_H) >= LEAST_TELLING else seen.first_K
        return cls(
            seen=seen,
            counts_K=counts_K,
            held_out=genotypes,
            codes_HP=seen.encoding.encode(genotypes),
            metric_H=metric_H,
            metric_T=np.concatenate([seen.metric_K[counts_K], metric_H]),
            ranks=make_link("rank", np.concatenate([seen.metric_K, metric_H])),
        )

    def score(self, guess_T: np.ndarray) -> tuple[float, float, np.ndarray]:
        """R2 on normal scores, Spearman and squared errors of predicted metrics."""
        truth, guess = self.ranks.forward(self.metric_T), self.ranks.forward(guess_T)
        error_T = (truth - np.clip(guess, -MOST_WRONG, MOST_WRONG)) ** 2
        spread = float(((truth - truth.mean()) ** 2).sum())
        if spread == 0:
            return 0.0, 0.0, error_T
        orders = np.stack([normal_scores(truth), normal_scores(guess_T)])
        spearman = float(np.corrcoef(orders)[0, 1]) if np.ptp(orders[1]) > 0 else 0.0
        return 1 - float(error_T.sum()) / spread, spearman, error_T


def _telling(seen: Observations) -> np.ndarray:
    """Which rows are of evaluated networks whose blocks all occur in other groups' rows that are so themselves."""
    x_KD = seen.encoding.one_hot(seen.codes_KP).astype(bool)
    core_K, before = np.ones(len(x_KD), dtype=bool), -1
    while before != core_K.sum():
        before = core_K.sum()
        groups_D = np.array([len(np.unique(seen.group_K[column & core_K])) for column in x_KD.T])
        core_K &= (~x_KD | (groups_D > 1)).all(axis=1)
    return np.asarray(core_K & seen.first_K)


def _try(judges: _Judges, data: Fitted, link: Link, kernel: Kernel, exponent: float, scale_H: np.ndarray) -> _Trial:
    seen = judges.seen
    value_K = link.forward(seen.metric_K)
    model = regress(data, value_K, kernel)
    left_out_K, sd_K = cross_validate(model, data, value_K)
    mean_H, sd_H = model.predict_measured(seen.encoding.one_hot(judges.codes_HP), scale_H)
    z_K, z_H = (value_K - left_out_K) / sd_K, (link.forward(judges.metric_H) - mean_H) / sd_H
    score, spearman, error_T = judges.score(link.inverse(np.concatenate([left_out_K[judges.counts_K], mean_H])))
    alternative = Alternative(
        link=link.name,
        exponent=exponent,
        pairs=kernel.pairs,
        ridge=kernel.noise,
        shared=kernel.shared,
        score=score,
        spearman=spearman,
        smooth=kernel.smooth,
    )
    return _Trial(
        alternative=alternative,
        link=link,
        regression=model,
        z_K=z_K[seen.first_K],
        z_T=np.concatenate([z_K[judges.counts_K], z_H]),
        error_T=error_T,
        mean_H=mean_H,
        sd_H=sd_H,
    )


def _quantile(trials: Sequence[_Trial], rng: np.random.Generator) -> float:
    """Half-width of the interval in standard deviations: the conformal quantile of left-out residuals.

    Choosing the best of many alternatives on the residuals flatters them. So
    the choice is repeated on bootstrap samples of the networks, and the
    residuals that count are those of the networks outside the sample
    (Tsamardinos et al., 2018). With fewer networks than the quantile needs,
    the normal one where it is larger.
    """
    error_AT = _unexplained(trials)  # as `fit` chooses
    z_AT = np.abs(np.stack([trial.z_T for trial in trials]))
    count = z_AT.shape[1]
    outside = []
    for _ in range(BOOTSTRAPS):
        times_T = np.bincount(rng.integers(count, size=count), minlength=count)
        outside.append(z_AT[int(np.argmin(error_AT @ times_T)), times_T == 0])
    level = np.ceil((count + 1) * COVERAGE) / count
    measured = float(np.quantile(np.concatenate(outside), min(level, 1.0)))
    return measured if level <= 1 else max(measured, NormalDist().inv_cdf((1 + COVERAGE) / 2))


def conformal_quantile(residual_N: np.ndarray) -> float:
    """What one more network's residual stays below with 90 % probability; of 8 or fewer, the largest."""
    level = min(np.ceil((len(residual_N) + 1) * COVERAGE) / len(residual_N), 1.0)
    return float(np.quantile(residual_N, level, method="inverted_cdf"))


def pooled_quantile(fitted_K: np.ndarray, held_out_N: np.ndarray) -> float:
    """The conformal quantile of held-out networks' residuals and of fitted ones' brought to their scale.

    The scale is the ratio of mean squares, drawn to 1 as by FITTED_WORTH
    held-out networks at which it is 1. Without held-out networks, the fitted ones' own quantile.
    """
    own = max(float(np.mean(fitted_K**2)), 1e-12)
    ratio = (FITTED_WORTH + float(np.sum(held_out_N**2)) / own) / (FITTED_WORTH + len(held_out_N))
    return conformal_quantile(np.concatenate([held_out_N, np.sqrt(ratio) * fitted_K]))


def _stretched(residual_K: np.ndarray, quantile: float) -> np.ndarray:
    """Residuals without their sign, with ``quantile`` as their conformal one."""
    size_K = np.abs(residual_K)
    return np.asarray(size_K * (quantile / max(conformal_quantile(size_K), 1e-12)))


def _exponents(config: PredictConfig, flops: CostTable | None, space: SearchSpace) -> tuple[float, ...]:
    if config.flops_exponent == "auto":
        can_be_a_ratio = flops is not None and len(space.resolutions) == 1 and least_flops(flops) > 0
        return EXPONENTS if can_be_a_ratio else (0.0,)
    exponent = float(config.flops_exponent)
    if not 0 <= exponent <= 1:
        raise ConfigError("predict.flops_exponent", exponent, "auto or a number from 0 to 1")
    if exponent and (flops is None or len(space.resolutions) > 1):
        found = f"{exponent:g} without FLOPs" if flops is None else f"{exponent:g} in a space of several resolutions"
        raise ConfigError("predict.flops_exponent", found, "0 or auto", "Profile the resource flops first.")
    return (exponent,)


def _kernels(config: PredictConfig, exponent: float, encoding: Encoding) -> list[Kernel]:
    wanted = {"auto": PAIR_WEIGHTS, True: PAIR_WEIGHTS[1:], False: (0.0,)}[config.pairs]
    return [
        Kernel(pairs=pairs, noise=noise, shared=shared, smooth=smooth)
        for pairs in wanted
        # A ratio of pairwise sums has no exact program, so pairs go with exponent 0.
        if not (pairs and exponent)
        for noise in NOISES
        for shared in (SHARED if encoding.shares_blocks else SHARED[:1])
        for smooth in (SMOOTH if encoding.ordered else SMOOTH[:1])
    ]


def _unexplained(trials: Sequence[_Trial]) -> np.ndarray:
    """[A, T] what each alternative leaves of each network that counts; an exponent has to explain clearly more.

    A few evaluations around a large base cannot tell what it does to small networks. And pairs that explain nothing
    are chosen only where nothing else is allowed: a program with thousands of them takes long to prove.
    """

    def worth(alternative: Alternative) -> float:
        explains = alternative.score > 0 or not alternative.pairs
        return (EXPONENT_WORTH if alternative.exponent else 1.0) * (1.0 if explains else NOTHING_EXPLAINED)

    return np.stack([trial.error_T / worth(trial.alternative) for trial in trials])


def _judged_apart(trials: Sequence[_Trial], judges: _Judges) -> dict[Genotype, Apart]:
    """Each held-out network by the alternative that would be chosen without it."""
    found, first, left_AT = dict[Genotype, Apart](), int(judges.counts_K.sum()), _unexplained(trials)
    for index, genotype in enumerate(judges.held_out):
        others_A = np.delete(left_AT, first + index, axis=1).sum(axis=1)
        trial = trials[int(np.argmin(others_A))]
        found[genotype] = Apart(link=trial.link, mean=float(trial.mean_H[index]), sd=float(trial.sd_H[index]))
    return found


def fit(
    space: SearchSpace,
    table: EvaluationTable,
    config: PredictConfig,
    *,
    base: Genotype,
    flops: CostTable | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    held_out: EvaluationTable | None = None,
) -> Predictor:
    """The predictor fitted to the evaluated networks; settings left on ``auto`` are cross-validated.

    Networks ``held_out`` are not fitted, but count in the choice of the settings where the fitted ones tell too little.

    ``groups`` labels the networks of ``table``: those with one label are never
    split by cross-validation (default: what they compute). ``flops`` allows the
    FLOPs exponent. ``seed`` draws the bootstrap samples behind the intervals' width.

    Raises:
        IncompleteTableError: with fewer than LEAST_NETWORKS networks.
        ConfigError: for a link or exponent that this metric or these costs do not allow.
    """
    if len(table) < LEAST_NETWORKS:
        raise IncompleteTableError("evaluations", f"{len(table)} networks", f"{LEAST_NETWORKS} at least to fit")
    seen = observe(space, table, groups)
    names = possible_links(seen.metric_K) if config.link == "auto" else (config.link,)
    judges = _Judges.of(seen, held_out)
    reference = mean_flops(flops) if flops is not None else None
    trials = []
    for exponent in _exponents(config, flops, space):
        data = _prepare(seen, exponent, base, flops)
        scale_H = flops_scale(flops, reference, exponent, judges.codes_HP)
        for name in names:
            link = make_link(name, seen.metric_K)
            trials += [
                _try(judges, data, link, kernel, exponent, scale_H)
                for kernel in _kernels(config, exponent, seen.encoding)
            ]
    best = int(np.argmin(_unexplained(trials).sum(axis=1)))
    quantile = _quantile(trials, np.random.default_rng(seed))
    return Predictor(
        space=space,
        base=base,
        table=table,
        link=trials[best].link,
        regression=trials[best].regression,
        exponent=trials[best].alternative.exponent,
        flops=flops,
        reference=reference,
        quantile=quantile,
        residual_K=_stretched(trials[best].z_K, quantile),
        selection=tuple(replace(t.alternative, chosen=index == best) for index, t in enumerate(trials)),
        apart=_judged_apart(trials, judges),
    )
