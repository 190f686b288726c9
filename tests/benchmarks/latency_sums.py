"""How well sums over blocks tell the latency of whole networks, for models of timm on the device at hand.

    python -m tests.benchmarks.latency_sums [--models resnet18,...] [--runtimes eager,...] [--batch 1] [--json]

Every model gets `mathnas shrink`'s library, with random weights. What the blocks cost is fitted to networks measured
whole, as a study does it; afterwards ``--networks`` random networks and the ``SELECTED`` of most FLOPs whose sums are
within ``--limit`` percent of the model's (so that errors of the sums are sought out, as a selection does) are measured,
in turns with the model. ``r2`` is of the random ones' shares of the model's latency, ``worst`` and ``worst_selected``
are the largest errors relative to what was measured. ``least`` is the share that the sums say is attainable at all.
``again`` is the largest difference between two measurements of one selected network: no prediction can be better.
``seconds`` is what measuring the blocks took.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from sklearn.metrics import r2_score

from nas_core.base.errors import NasError
from nas_core.costs import profile
from nas_core.costs.settings import ProfileConfig
from nas_core.costs.timing import torch_device
from nas_core.families import FAMILIES
from nas_core.families.family import Family
from nas_core.records.evaluations import CostTable
from nas_core.space.genotypes import Genotype
from nas_core.workloads.workload import Sample
from tests.benchmarks.conditions import conditions

LATENCY = "latency_ms"
SELECTED = 10
DRAWN = 20_000  # networks among which those to select are sought


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet18,mobilenetv2_100,convnext_atto,vit_tiny_patch16_224")
    parser.add_argument("--runtimes", default="eager", help="of eager, compile, cuda-graph, onnxruntime, openvino")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=224, help="pixels of the images")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--networks", type=int, default=20, help="random ones that sums are held against")
    parser.add_argument("--limit", type=int, default=60, help="percent of the model's latency")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    given = parser.parse_args()
    if given.networks < 2 or given.side < 1 or not 0 < given.limit < 100:
        parser.error("--networks is at least 2, --side at least 1, --limit from 1 to 99")
    try:
        studied = [
            (name, runtime, *setting(name, runtime, given))
            for name in names(given.models)
            for runtime in names(given.runtimes)
        ]
    except (NasError, ValidationError) as error:
        parser.error(" ".join(str(error).split()))
    found: dict[str, Any] = {}
    for model, runtime, family, config in studied:
        row = found.setdefault(model, {})[runtime] = measured(family, config, given)
        if not given.json:
            print(model, runtime, row, flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and given.device != "cpu" else "cpu"
    print(json.dumps({"models": found, "conditions": conditions(**vars(given) | {"device": device})}))


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def setting(model: str, runtime: str, given: argparse.Namespace) -> tuple[Family, ProfileConfig]:
    """What is measured how; raises NasError or ValidationError before anything is, where that cannot be."""
    kind = FAMILIES["model"]
    family = kind(kind.Settings(model=f"timm:{model}"), Sample(shape=(3, given.side, given.side), num_outputs=1000))
    config = ProfileConfig(
        runtime=runtime, device=given.device, batch_size=given.batch, repeats=given.repeats, warmup=5
    )
    torch_device(config.profilers["latency"])
    _ = family.space  # splits the model: one without positions is refused here
    return family, config


def measured(family: Family, config: ProfileConfig, given: argparse.Namespace) -> dict[str, Any]:
    """One model in one runtime: the agreement of sums and whole networks."""
    began = time.perf_counter()
    rows = profile(family, [], config, [LATENCY])
    seconds = time.perf_counter() - began
    table = CostTable.from_rows(rows, LATENCY, family.space.num_choices, given.side)
    base = Genotype((0,) * family.space.num_positions)
    rng = np.random.default_rng(1)
    drawn = list(dict.fromkeys(family.space.sample(rng) for _ in range(given.networks)))
    selected = most_flops_within(family, table, given.limit / 100 * table.total(base), rng)
    taken = whole_ms(family, [base, *drawn, *selected], config)
    again = whole_ms(family, [base, *selected], config)
    shares = {each: ms / taken[base] for each, ms in taken.items()}
    sums = {each: table.total(each) / table.total(base) for each in taken}
    errors = {each: abs(sums[each] / shares[each] - 1) for each in taken}
    repeated = [abs(again[each] / again[base] / shares[each] - 1) for each in selected]
    return {
        "positions": family.space.num_positions,
        "blocks": sum(family.space.num_choices),
        "base_ms": round(taken[base], 3),
        "sum_of_base": round(table.total(base) / taken[base], 3),
        "least": round((table.fixed + sum(map(min, table.block))) / table.total(base), 3),
        "r2": round(float(r2_score([shares[each] for each in drawn], [sums[each] for each in drawn])), 3),
        "worst": round(max(errors[each] for each in drawn), 3),
        "selected": len(selected),
        "worst_selected": round(max((errors[each] for each in selected), default=0.0), 3),
        "again": round(max(repeated, default=0.0), 3),
        "seconds": round(seconds, 1),
    }


def most_flops_within(family: Family, table: CostTable, most: float, rng: np.random.Generator) -> list[Genotype]:
    """Networks whose sums are within the limit, those of most FLOPs."""
    counts = profile(family, [], ProfileConfig(), ["flops"])
    flops = CostTable.from_rows(counts, "flops", family.space.num_choices, family.space.resolutions[0])
    codes_NP = leaning(table, rng)
    within_N = np.flatnonzero(table.totals(codes_NP) <= most)
    best_N = within_N[np.argsort(-flops.totals(codes_NP[within_N]), kind="stable")]
    return [Genotype(tuple(map(int, codes_NP[index]))) for index in best_N[:SELECTED]]


def leaning(table: CostTable, rng: np.random.Generator) -> np.ndarray:
    """Distinct random networks (N, positions): of one random block each, or the cheapest of two, three or four."""
    tries_N = 1 + np.arange(DRAWN) % 4
    columns = []
    for prices in map(np.array, table.block):
        drawn_NT = rng.integers(len(prices), size=(DRAWN, 4))
        drawn_NT = np.where(np.arange(4) < tries_N[:, None], drawn_NT, drawn_NT[:, :1])
        columns.append(drawn_NT[np.arange(DRAWN), prices[drawn_NT].argmin(axis=1)])
    return np.unique(np.stack(columns, axis=1), axis=0)


def whole_ms(family: Family, genotypes: Sequence[Genotype], config: ProfileConfig) -> Mapping[Genotype, float]:
    """Measured whole, in turns; raises RuntimeError for one that fails."""
    found = {}
    for row in profile(family, genotypes, config, [LATENCY], blocks=False):
        if row.status != "ok" or row.genotype is None:
            raise RuntimeError(f"{row.genotype}: {row.message}")
        found[family.space.parse(row.genotype)] = row.value
    return found


if __name__ == "__main__":
    main()
