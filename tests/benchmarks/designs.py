"""Which networks to evaluate first: what several designs do to predictions of networks not used to fit.

    python -m tests.benchmarks.designs [--config flows/configs/demo.yaml] [--root DIR] [--held-out 40] [--json]

Trains the study's scorer where it is not trained yet (the demo's supernet: a
minute), evaluates each design's networks and the same held-out ones, in this
process, and prints Kendall's tau, Spearman's rho and the share inside the 90 %
interval, beside the tau of counting FLOPs.
"""

import argparse
import json
import tempfile

from nas_core.costs import profile_blocks
from nas_core.prediction import calibrate, fit
from nas_core.records.evaluations import EvaluationTable
from nas_core.records.store import Store
from nas_core.scoring import build_scorer
from nas_core.space.genotypes import Genotype
from nas_core.study.config import StudyConfig, read_config
from nas_core.study.study import Study
from tests.benchmarks.conditions import conditions

DESIGNS = (
    {"design.kind": "one-swap", "design.context_kind": "base", "design.contexts": "1"},
    {"design.kind": "one-swap", "design.context_kind": "random", "design.contexts": "2"},
    {"design.kind": "one-swap", "design.context_kind": "random", "design.contexts": "4"},
    {"design.kind": "balanced", "design.networks": "24"},
    {"design.kind": "balanced", "design.networks": "64"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="flows/configs/demo.yaml")
    parser.add_argument("--root", default=None, help="folder of a study to reuse; default: a temporary one")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(arguments.root or folder)
        rows = []
        for overrides in DESIGNS:
            config = read_config(arguments.config, {**overrides, "design.held_out": str(arguments.held_out)})
            rows.append({**overrides, **judged(Study(config, store), config)})
            if not arguments.json:
                print(rows[-1], flush=True)
    print(json.dumps({"designs": rows, "conditions": conditions(config=arguments.config)}))


def judged(study: Study, config: StudyConfig) -> dict[str, float]:
    """Agreement of the design's predictions with the held-out networks."""
    if not study.has_flops:
        study.store.add_costs(profile_blocks(study.space, config.profile, ["flops"]))
        study.forget_costs()
    evaluate_missing(study, config)
    metrics = {row.genotype: row for row in study.evaluations()}
    fitted, held_out = (
        EvaluationTable.from_rows([metrics[str(genotype)] for genotype in networks])
        for networks in (study.design.fit_genotypes, study.design.held_out)
    )
    predictor = fit(study.space, fitted, config.predict, base=study.base, flops=study.flops, seed=config.seed)
    found = calibrate(predictor, study.space, held_out, study.costs_of)
    figures = {"kendall": found.kendall, "spearman": found.spearman, "coverage_90": found.coverage_90}
    counted = {"kendall_of_counting_flops": found.counts["flops"].kendall}
    return {"evaluations": len(fitted), **{name: round(value, 3) for name, value in {**figures, **counted}.items()}}


def evaluate_missing(study: Study, config: StudyConfig) -> None:
    """Evaluate what the store does not hold of the design, in this process."""
    missing = study.missing(study.design.genotypes)
    if missing:
        scorer = build_scorer(config, study.space, study.store)
        scorer.prepare(lambda done, total, note: None)
        study.store.add_evaluations(scorer.evaluate([Genotype.parse(text) for text in missing]))


if __name__ == "__main__":
    main()
