"""Closed forms of the DeepMAD program: entropy, effectiveness, FLOPs, parameters, penalties, score.

Every function takes a ``Batch`` and is vectorised over it. The closed forms
equal a layer-by-layer count (``tests/nas_core/deepmad/plain.py``) exactly for
integers. Axes: S super-blocks, T stages, B structures of a batch.

Notation (per super-block): c input channels, o output channels, b bottleneck,
k kernel, L depth, s stride, r input side, r_o = r / s. FLOPs are multiply-adds
plus one per BatchNorm scale, shift, activation and pooled element, as the
authors' code counts them; neither squeeze-and-excitation nor the classifier is
counted, and parameters leave the classifier out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_core.base.errors import ConfigError, UnknownNameError
from nas_core.deepmad.structure import LAYERS_PER_BLOCK, Skeleton, Structure, SuperBlock

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TINYNAS_RESOLUTION = 224  # the authors' score ignores the image size of its own configuration
DEPTH_PENALTY = 10.0  # beta
LAST_STAGE_WEIGHT = 8.0  # alpha = (1, .., 1, 8)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B structures of one skeleton as integer arrays."""

    skeleton: Skeleton
    stem_B: Ints
    out_SB: Ints
    bottleneck_SB: Ints
    kernel_SB: Ints
    depth_SB: Ints

    @classmethod
    def of(cls, structures: Sequence[Structure]) -> "Batch":
        """The structures as one batch; they share one skeleton."""
        assert structures
        assert all(s.skeleton == structures[0].skeleton for s in structures)
        return cls(
            skeleton=structures[0].skeleton,
            stem_B=np.array([s.stem for s in structures], dtype=np.int64),
            out_SB=_field(structures, "out"),
            bottleneck_SB=_field(structures, "bottleneck"),
            kernel_SB=_field(structures, "kernel"),
            depth_SB=_field(structures, "depth"),
        )

    def __len__(self) -> int:
        return len(self.stem_B)

    def inputs(self, block: int) -> Ints:
        """Input channels of one super-block."""
        return self.stem_B if block == 0 else self.out_SB[block - 1]

    def take(self, index: Ints | NDArray[np.bool_]) -> "Batch":
        """The structures at ``index``."""
        return Batch(
            skeleton=self.skeleton,
            stem_B=self.stem_B[index],
            out_SB=self.out_SB[:, index],
            bottleneck_SB=self.bottleneck_SB[:, index],
            kernel_SB=self.kernel_SB[:, index],
            depth_SB=self.depth_SB[:, index],
        )

    def structure(self, index: int) -> Structure:
        """One structure of the batch as plain data."""
        blocks = tuple(
            SuperBlock(
                out=int(self.out_SB[i, index]),
                bottleneck=int(self.bottleneck_SB[i, index]),
                kernel=int(self.kernel_SB[i, index]),
                depth=int(self.depth_SB[i, index]),
                stride=stride,
            )
            for i, stride in enumerate(self.skeleton.strides)
        )
        return Structure(skeleton=self.skeleton, stem=int(self.stem_B[index]), blocks=blocks)


def _field(structures: Sequence[Structure], name: str) -> Ints:
    rows = [[getattr(block, name) for block in s.blocks] for s in structures]
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).T)


def squeeze_channels(bottleneck: Ints) -> Ints:
    """Channels of the squeeze, q = 8 max(1, round(b / 4) // 8), halves rounded to even as Python does."""
    return 8 * np.maximum(1, np.rint(bottleneck / 4).astype(np.int64) // 8)


def params(batch: Batch) -> Ints:
    """Parameters without the classifier.

    Stem 29 c0 (9 n + 2 of n image channels); head oh + 2h. ResNet family, per super-block:
    [cb+4b+b^2k^2+bo+2o + (co+2o)] + (L-1)[2ob+4b+b^2k^2+2o]. MobileNet family,
    with S = 2bq+2q+2b: [cb+4b+bk^2+S+bo+2o] + (L-1)[2ob+4b+bk^2+S+2o].
    """
    total: Ints = batch.skeleton.stem_params * batch.stem_B
    for i in range(batch.skeleton.num_blocks):
        total = total + _block_params(batch, i)
    head = batch.skeleton.head
    return total if head is None else total + (batch.out_SB[-1] + 2) * head


def _block_params(batch: Batch, i: int) -> Ints:
    c, o, b, k = batch.inputs(i), batch.out_SB[i], batch.bottleneck_SB[i], batch.kernel_SB[i]
    more = batch.depth_SB[i] - 1
    if batch.skeleton.family == "resnet":
        middle = b * (4 + b * k * k) + 2 * o
        total: Ints = b * (c + o) + middle + (c + 2) * o + more * (2 * o * b + middle)
        return total
    q = squeeze_channels(b)
    middle = b * (6 + k * k + 2 * q) + 2 * q + 2 * o
    total = b * (c + o) + middle + more * (2 * o * b + middle)
    return total


def flops(batch: Batch) -> Ints:
    """FLOPs at the skeleton's resolution, in the authors' counting (module docstring).

    Stem 7.5 c0 res^2 ((9 n + 3) / 4 of n image channels); head (oh + 3h) r^2. ResNet family, per super-block:
    r_o^2 {s^2(cb+3b) + b^2k^2+3b + bo+3o + s^2 c [s=2] + (co+3o)
    + (L-1)(2ob+6b+b^2k^2+3o)}. MobileNet family: bk^2 for b^2k^2, no
    projection (co+3o), and the pooled shortcut s^2 c only if s=2 and c=o.
    """
    skeleton = batch.skeleton
    total: Ints = skeleton.stem_flops * batch.stem_B
    for i, side in enumerate(skeleton.out_resolutions):
        total = total + side**2 * _block_flops(batch, i)
    if skeleton.head is not None:
        total = total + (batch.out_SB[-1] + 3) * (skeleton.head * skeleton.out_resolutions[-1] ** 2)
    return total


def _block_flops(batch: Batch, i: int) -> Ints:
    """FLOPs of a super-block per pixel of its output."""
    c, o, b, k = batch.inputs(i), batch.out_SB[i], batch.bottleneck_SB[i], batch.kernel_SB[i]
    more = batch.depth_SB[i] - 1
    area = batch.skeleton.strides[i] ** 2
    is_resnet = batch.skeleton.family == "resnet"
    middle = b * ((b if is_resnet else 1) * k * k + 3) + 3 * o
    total: Ints = area * b * (c + 3) + middle + b * o + more * (2 * o * b + 3 * b + middle)
    if is_resnet:
        total = total + (c + 3) * o
    if area == 4:
        total = total + (4 * c if is_resnet else np.where(c == o, 4 * c, 0))
    return total


def half_log_widths(batch: Batch) -> Floats:
    """e of every super-block, S x B: half the sum of ln w over its layers, w = c k^2 / g.

    ResNet family: 1/2 [ln(c b^2 k^2) + (L-1) ln(o b^2 k^2)]. MobileNet family
    (depthwise, g = b): 1/2 [ln(c b k^2) + (L-1) ln(o b k^2)].
    """
    log_out_SB = np.log(batch.out_SB)
    log_in_SB = np.concatenate([np.log(batch.stem_B)[None], log_out_SB[:-1]])
    dense = 2.0 if batch.skeleton.family == "resnet" else 1.0
    rest_SB = dense * np.log(batch.bottleneck_SB) + 2.0 * np.log(batch.kernel_SB) + log_out_SB
    return 0.5 * (log_in_SB - log_out_SB + batch.depth_SB * rest_SB)


def stage_entropies(batch: Batch) -> Floats:
    """E_t, T x B: half the log of the product of all widths up to the end of stage t."""
    e_SB = half_log_widths(batch)
    skeleton = batch.skeleton
    running = np.full(len(batch), 0.5 * np.log(skeleton.stem_width))
    total_TB = np.empty((skeleton.num_stages, len(batch)))
    block = 0
    for stage in range(skeleton.num_stages):
        while block <= skeleton.last_block_of_stage(stage):
            running = running + e_SB[block]
            block += 1
        total_TB[stage] = running
    if skeleton.head is not None:
        total_TB[-1] += 0.5 * np.log(batch.out_SB[-1])
    return total_TB


def stage_layers(batch: Batch) -> Ints:
    """D_t, T x B: layers up to the end of stage t; the stem and the head are one layer each, an inner block three."""
    skeleton = batch.skeleton
    blocks_SB = np.cumsum(batch.depth_SB, axis=0)
    rows = [skeleton.last_block_of_stage(t) for t in range(skeleton.num_stages)]
    D_TB: Ints = np.array([1 + (LAYERS_PER_BLOCK * blocks_SB[i] if i >= 0 else 0 * batch.stem_B) for i in rows])
    if skeleton.head is not None:
        D_TB[-1] += 1
    return D_TB


def stage_channels(batch: Batch) -> Ints:
    """C_t, T x B: output channels of every stage; those of the head where it ends the last stage."""
    skeleton = batch.skeleton
    rows = [skeleton.last_block_of_stage(t) for t in range(skeleton.num_stages)]
    C_TB = np.array([batch.out_SB[i] if i >= 0 else batch.stem_B for i in rows])
    if skeleton.head is not None:
        C_TB[-1] = skeleton.head
    return C_TB


def effectiveness(batch: Batch) -> Floats:
    """rho = max over stages of D_t exp(-2 E_t / D_t): depth over the geometric mean width."""
    D_TB = stage_layers(batch)
    ratios = D_TB * np.exp(-2.0 * stage_entropies(batch) / D_TB)
    return np.asarray(ratios.max(axis=0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is maximised: sum_t alpha_t (ln C_t + 2 ln R_t) E_t - beta Q(depths).

    ``stage_log_area`` gives 2 ln R_t of every stage of a skeleton, ``penalised``
    the super-blocks whose depths enter Q, and ``unevenness`` is the spread in
    Q = exp(spread): ``std`` or ``var``.
    """

    name: str
    stage_log_area: Callable[[Skeleton], tuple[float, ...]]
    penalised: Callable[[Skeleton], tuple[int, ...]]
    unevenness: str
    beta: float = DEPTH_PENALTY

    def weights(self, skeleton: Skeleton) -> tuple[float, ...]:
        """alpha of every stage: 1 everywhere but 8 at the last."""
        return (1.0,) * (skeleton.num_stages - 1) + (LAST_STAGE_WEIGHT,)

    def penalty(self, batch: Batch) -> Floats:
        """beta exp(spread of the penalised depths)."""
        rows = list(self.penalised(batch.skeleton))
        depth_SB = batch.depth_SB[rows]
        if not rows:
            return np.full(len(batch), self.beta)
        spread = depth_SB.std(axis=0) if self.unevenness == "std" else depth_SB.var(axis=0)
        with np.errstate(over="ignore"):  # exp(var) of very uneven depths is infinite, the score then -inf
            return np.asarray(self.beta * np.exp(spread))

    def score(self, batch: Batch) -> Floats:
        """The objective's value for every structure of the batch."""
        skeleton = batch.skeleton
        log_area_T = np.array(self.stage_log_area(skeleton))
        heights_TB = np.log(stage_channels(batch)) + log_area_T[:, None]
        return np.asarray(
            np.einsum("t,tb,tb->b", np.array(self.weights(skeleton)), heights_TB, stage_entropies(batch))
            - self.penalty(batch)
        )


def _true_log_area(skeleton: Skeleton) -> tuple[float, ...]:
    return _log_areas(skeleton, skeleton.resolution)


def _tinynas_log_area(skeleton: Skeleton) -> tuple[float, ...]:
    """As the authors' code has it: at 224 pixels, and R_t = 1 from the first SE block on."""
    areas = _log_areas(skeleton, TINYNAS_RESOLUTION)
    if skeleton.family == "resnet":
        return areas
    return tuple(0.0 if skeleton.last_block_of_stage(t) >= 0 else area for t, area in enumerate(areas))


def _log_areas(skeleton: Skeleton, resolution: int) -> tuple[float, ...]:
    sides, side = [], resolution // 2
    for _ in range(skeleton.num_stages):
        sides.append(side)
        side //= 2
    # stage t ends at the side that its stride-2 super-block left: halved t times after the stem
    return tuple(2.0 * float(np.log(max(1, side))) for side in sides)


def _tinynas_penalised(skeleton: Skeleton) -> tuple[int, ...]:
    """The authors' code drops the first super-block of the ResNet family twice."""
    return tuple(range(2 if skeleton.family == "resnet" else 0, skeleton.num_blocks))


TINYNAS = Objective(name="tinynas", stage_log_area=_tinynas_log_area, penalised=_tinynas_penalised, unevenness="std")
PAPER = Objective(
    name="paper",
    stage_log_area=_true_log_area,
    penalised=lambda skeleton: tuple(range(skeleton.num_blocks)),
    unevenness="var",
)


def objective_named(name: str) -> Objective:
    """The objective of this name; raises UnknownNameError if there is none."""
    objectives = {objective.name: objective for objective in (TINYNAS, PAPER)}
    if name not in objectives:
        raise UnknownNameError("objective", repr(name), f"one of: {', '.join(objectives)}")
    return objectives[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rating:
    """The exact figures of one structure."""

    objective: str
    score: float
    flops: int
    params: int
    rho: float


def rate(structure: Structure, objective: Objective) -> Rating:
    """Score, FLOPs, parameters and effectiveness of one structure."""
    batch = Batch.of([structure])
    return Rating(
        objective=objective.name,
        score=float(objective.score(batch)[0]),
        flops=int(flops(batch)[0]),
        params=int(params(batch)[0]),
        rho=float(effectiveness(batch)[0]),
    )


def concatenate(batches: Iterable[Batch]) -> Batch:
    """Batches of one skeleton as one.

    Raises:
        ConfigError: if there is no batch.
    """
    parts = list(batches)
    if not parts:
        raise ConfigError("batches", "none", "one batch at least")
    return Batch(
        skeleton=parts[0].skeleton,
        stem_B=np.concatenate([p.stem_B for p in parts]),
        out_SB=np.concatenate([p.out_SB for p in parts], axis=1),
        bottleneck_SB=np.concatenate([p.bottleneck_SB for p in parts], axis=1),
        kernel_SB=np.concatenate([p.kernel_SB for p in parts], axis=1),
        depth_SB=np.concatenate([p.depth_SB for p in parts], axis=1),
    )
