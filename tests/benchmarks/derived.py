"""Tables that no setting was tuned on: derived from the reference data, and made up, each of another character.

``derived_tables()`` builds those whose data are there. In some of them the
larger network is not the better one (a penalty on latency, choices in another
order, a metric that falls with size); some are ragged, tiny, noisy, or full of
interactions. Rows are networks (axis N); positions are axis P.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from nas_core.space.encoding import all_codes
from nas_core.space.genotypes import BlockSpec, Position, SearchSpace
from tests.benchmarks.tables import NetworkTable
from tests.reference_data import data_root

MOST_NETWORKS = 10_000  # of a space that is not listed whole


def derived_tables() -> Iterator[NetworkTable]:
    """Every table whose data are there, the made ones last."""
    for build in (*FROM_DATA, *MADE):
        try:
            yield build()
        except FileNotFoundError:
            continue


def space_of(name: str, sizes: tuple[int, ...]) -> SearchSpace:
    """A space of so many distinct blocks per position."""
    positions = tuple(
        Position(name=f"p{place}", blocks=tuple(BlockSpec.of("value", at=place, value=x) for x in range(size)))
        for place, size in enumerate(sizes)
    )
    return SearchSpace(name=name, positions=positions)


def table(
    name: str, codes_NP: np.ndarray, metric_N: np.ndarray, flops_N: np.ndarray, sizes: tuple[int, ...]
) -> NetworkTable:
    return NetworkTable(
        name=name,
        space=space_of(name, sizes),
        codes_NP=codes_NP.astype(np.int16),
        select_N=np.asarray(metric_N, dtype=float),
        report_N=np.asarray(metric_N, dtype=float),
        costs={"flops": np.asarray(flops_N, dtype=float)},
    )


def _read(path: str) -> pd.DataFrame:
    found = data_root() / path
    if not found.exists():
        raise FileNotFoundError(found)
    return pd.read_parquet(found) if found.suffix == ".parquet" else pd.read_csv(found)


NB201_EDGES = ["e10", "e20", "e21", "e30", "e31", "e32"]


def _nasbench201() -> tuple[pd.DataFrame, np.ndarray]:
    frame = _read("nasbench201/nasbench201.parquet")
    return frame, frame[NB201_EDGES].to_numpy()


def one_seed_short_training() -> NetworkTable:
    """NAS-Bench-201 after 12 epochs of one seed: noisy."""
    frame, codes_NP = _nasbench201()
    return table("nb201-12-epochs", codes_NP, frame["c10_val_12ep"], frame["flops_M"], (5,) * 6)


def without_none() -> NetworkTable:
    """NAS-Bench-201's cells without `none`: nothing collapses."""
    frame, codes_NP = _nasbench201()
    keep = (codes_NP > 0).all(axis=1)
    return table("nb201-without-none", codes_NP[keep] - 1, frame["c100_val_g"][keep], frame["flops_M"][keep], (4,) * 6)


def fast_on_a_phone() -> NetworkTable:
    """Minus the measured latency of NAS-Bench-201's cells on a Pixel 3: the largest is the worst."""
    frame, codes_NP = _nasbench201()
    latency = _read("nasbench201_latency/help_devices.parquet").set_index("idx")["pixel3"]
    return table("nb201-minus-latency", codes_NP, -latency.loc[frame["idx"]].to_numpy(), frame["flops_M"], (5,) * 6)


def accuracy_less_latency() -> NetworkTable:
    """Accuracy of NAS-Bench-201's cells less a price per ms on a Raspberry Pi 4: the best is of middle size."""
    frame, codes_NP = _nasbench201()
    latency = _read("nasbench201_latency/help_devices.parquet").set_index("idx")["raspi4"].loc[frame["idx"]]
    price = 12 / np.ptp(np.quantile(latency, [0.05, 0.95]))
    return table(
        "nb201-priced-latency", codes_NP, frame["im_val_g"] - price * latency.to_numpy(), frame["flops_M"], (5,) * 6
    )


def _macro() -> tuple[pd.DataFrame, np.ndarray]:
    frame = _read("nasbench_macro/cifar10.parquet")
    return frame, frame[[f"p{place}" for place in range(8)]].to_numpy()


def macro_priced() -> NetworkTable:
    """NAS-Bench-Macro's accuracy less a price on FLOPs that makes small networks as good as large ones."""
    frame, codes_NP = _macro()
    price = 4 / np.ptp(np.quantile(frame["flops"], [0.05, 0.95]))
    return table("macro-priced-flops", codes_NP, frame["mean_acc"] - price * frame["flops"], frame["flops"], (3,) * 8)


def macro_negated() -> NetworkTable:
    """NAS-Bench-Macro's error: a search for the worst network, whose sizes mislead."""
    frame, codes_NP = _macro()
    return table("macro-negated", codes_NP, -frame["mean_acc"], frame["flops"], (3,) * 8)


def macro_permuted() -> NetworkTable:
    """NAS-Bench-Macro with every position's choices in another order: size says nothing."""
    frame, codes_NP = _macro()
    rng = np.random.default_rng(11)
    orders = np.stack([rng.permutation(3) for _ in range(8)])
    permuted = np.take_along_axis(orders, codes_NP.T.astype(int), axis=1).T
    return table("macro-permuted", permuted, frame["mean_acc"], permuted.sum(axis=1) + 1.0, (3,) * 8)


def macro_half() -> NetworkTable:
    """The sub-space of NAS-Bench-Macro whose first three positions are fixed: 243 networks."""
    frame, codes_NP = _macro()
    keep = (codes_NP[:, :3] == 1).all(axis=1)
    return table("macro-243", codes_NP[keep][:, 3:], frame["mean_acc"][keep], frame["flops"][keep], (3,) * 5)


def mobilenetv3() -> NetworkTable:
    """MathNAS's published losses of MobileNetV3's blocks, summed: additive, 5 x 5."""
    frame = _read("mathnas_tables/mobilenetv3_blockacc_gpu.csv")
    loss = frame.pivot(index="position", columns="block_index", values="top1_loss_pp").to_numpy()
    codes_NP = all_codes((5,) * 5)
    metric_N = 79.23 - loss[np.arange(5), codes_NP].sum(axis=1)
    return table("mobilenetv3-published", codes_NP, metric_N, codes_NP.sum(axis=1) + 1.0, (5,) * 5)


def supervit() -> NetworkTable:
    """MathNAS's published SuperViT blocks at 224 pixels, summed, with noise of 0.1 points: ragged, 2 to 63 blocks."""
    return _summed("supervit-published", "mathnas_tables/supervit_blockacc.csv", "top1_pct_of_whole_network", 0.1)


def supertransformer() -> NetworkTable:
    """MathNAS's published SuperTransformer blocks, summed, with noise of 0.05 BLEU: 6 x 6 and 6 x 36 blocks."""
    return _summed(
        "supertransformer-published", "mathnas_tables/supertransformer_blockacc.csv", "BLEU_of_whole_network", 0.05
    )


def _summed(name: str, path: str, column: str, noise: float) -> NetworkTable:
    """A sample of a large additive space, each network with a noise of its own."""
    frame = _read(path)
    if "resolution" in frame:
        frame = frame[frame["resolution"] == 224]
    if "part" in frame:
        frame = frame[frame["part"] != "decoder_absent"]
        frame = frame.assign(position=frame.groupby("part", sort=False)["layer"].transform(lambda s: s))
        frame["position"] = frame["part"].map({"encoder": 0, "decoder": 6}) + frame["layer"]
    rows = [group.sort_values("block_index")[column].to_numpy() for _, group in frame.groupby("position")]
    sizes, rng = tuple(len(row) for row in rows), np.random.default_rng(5)
    codes_NP = np.unique(np.stack([rng.integers(size, size=MOST_NETWORKS) for size in sizes], axis=1), axis=0)
    base = float(np.mean([row[0] for row in rows]))
    gain_N = sum(rows[place][codes_NP[:, place]] - rows[place][0] for place in range(len(rows)))
    metric_N = base + gain_N + noise * rng.normal(size=len(codes_NP))
    return table(name, codes_NP, metric_N, codes_NP.sum(axis=1) + 1.0, sizes)


def _made(
    name: str, sizes: tuple[int, ...], metric: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int
) -> NetworkTable:
    codes_NP, rng = all_codes(sizes), np.random.default_rng(seed)
    if len(codes_NP) > MOST_NETWORKS:
        codes_NP = codes_NP[np.sort(rng.choice(len(codes_NP), MOST_NETWORKS, replace=False))]
    flops = [np.sort(rng.uniform(1, 5, size)) for size in sizes]
    flops_N = 2 + sum(row[codes_NP[:, place]] for place, row in enumerate(flops))
    return table(name, codes_NP, metric(codes_NP, rng), flops_N, sizes)


def _interacting(codes_NP: np.ndarray, rng: np.random.Generator, *, pairs: float, noise: float) -> np.ndarray:
    """A number per block, one per pair of neighbouring positions' blocks, and noise; unit: standard deviations."""
    sizes = codes_NP.max(axis=0) + 1
    total_N = np.zeros(len(codes_NP))
    for place, size in enumerate(sizes):
        total_N += rng.normal(size=size)[codes_NP[:, place]]
    for p, q in itertools.pairwise(range(len(sizes))):
        total_N += pairs * rng.normal(size=(sizes[p], sizes[q]))[codes_NP[:, p], codes_NP[:, q]]
    return np.asarray(total_N + noise * rng.normal(size=len(codes_NP)))


def ragged_pairs() -> NetworkTable:
    """Positions of 2 to 8 blocks, whose neighbours interact."""
    return _made("ragged-pairs", (2, 3, 5, 8, 2, 4), lambda c, r: _interacting(c, r, pairs=0.5, noise=0.1), 21)


def rugged() -> NetworkTable:
    """Interactions stronger than effects: little can be predicted."""
    return _made("rugged", (4,) * 6, lambda c, r: _interacting(c, r, pairs=1.5, noise=0.3), 22)


def noisy_supernet() -> NetworkTable:
    """Additive, with a noise as large as the signal."""
    return _made("noisy", (3,) * 8, lambda c, r: _interacting(c, r, pairs=0.1, noise=2.5), 23)


def tiny() -> NetworkTable:
    """27 networks."""
    return _made("tiny-27", (3, 3, 3), lambda c, r: _interacting(c, r, pairs=0.3, noise=0.05), 24)


def saturating() -> NetworkTable:
    """An accuracy that saturates in an additive capacity, and collapses when two positions are both at choice 0."""

    def metric(codes_NP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        capacity_N = _interacting(codes_NP, rng, pairs=0.2, noise=0.05)
        accuracy_N = 95 - 20 * np.exp(-(capacity_N - capacity_N.min()) / capacity_N.std() / 1.5)
        return np.where((codes_NP[:, 0] == 0) & (codes_NP[:, 1] == 0), 10.0, accuracy_N)

    return _made("saturating", (4, 4, 4, 3, 3, 3), metric, 25)


def widths() -> NetworkTable:
    """Eight widths in each of five positions; the best width is in the middle, neighbours' widths should agree."""

    def metric(codes_NP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        width_NP = codes_NP / 7
        best_P, gain_P = rng.uniform(0.3, 0.9, 5), rng.uniform(0.5, 2, 5)
        own_N = -(gain_P * (width_NP - best_P) ** 2).sum(axis=1)
        return np.asarray(
            70 + 4 * own_N - (np.diff(width_NP, axis=1) ** 2).sum(axis=1) + 0.05 * rng.normal(size=len(codes_NP))
        )

    return _made("widths", (8,) * 5, metric, 26)


def widths_declared() -> NetworkTable:
    """The same, with its choices declared ordered."""
    plain = widths()
    positions = tuple(replace(position, ordered=True) for position in plain.space.positions)
    return replace(plain, name="widths-ordered", space=replace(plain.space, positions=positions))


FROM_DATA = (
    one_seed_short_training,
    without_none,
    fast_on_a_phone,
    accuracy_less_latency,
    macro_priced,
    macro_negated,
    macro_permuted,
    macro_half,
    mobilenetv3,
    supervit,
    supertransformer,
)
MADE = (ragged_pairs, rugged, noisy_supernet, tiny, saturating, widths, widths_declared)
