"""Which networks to evaluate first: what several designs do to predictions of networks not used to fit.

    python -m tests.benchmarks.designs [--config flows/configs/demo.yaml] [--root DIR] [--starts 5] [--json]

Trains the study's scorer where it is not trained yet (the demo's supernet: a
minute), evaluates each design's networks, 8 held-out ones and the same 40
judges, in this process, and prints Kendall's tau, Spearman's rho, the share of
judges inside the 90 % interval as a study has it (``coverage_90``) and as it is
without held-out networks, beside the tau of counting FLOPs. Medians over
designs of ``--starts`` seeds.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_core.costs import profile_blocks
from nas_core.prediction import calibrate, fit
from nas_core.records.evaluations import EvaluationTable
from nas_core.records.store import Store
from nas_core.searchers.designs import Design, make_design
from nas_core.searchers.settings import DesignConfig
from nas_core.space.equivalence import function_id
from nas_core.space.genotypes import Genotype
from nas_core.study.config import read_config
from nas_core.study.study import Study
from tests.benchmarks.conditions import conditions

DESIGNS = (
    DesignConfig(),
    DesignConfig(networks=24),
    DesignConfig(networks=61),
    DesignConfig(kind="one-swap"),
    DesignConfig(kind="one-swap", context_kind="random", contexts=2),
    DesignConfig(kind="one-swap", context_kind="random", contexts=4),
)
JUDGES_SEED = 10_000  # of the networks that no design holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="flows/configs/demo.yaml")
    parser.add_argument("--root", default=None, help="folder of a study to reuse; default: a temporary one")
    parser.add_argument("--starts", type=int, default=5, help="seeds of every design")
    parser.add_argument("--judges", type=int, default=40, help="networks that predictions are held against")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(read_config(arguments.config), Store(arguments.root or folder))
        evaluator = Evaluator(study)
        rng = np.random.default_rng(JUDGES_SEED)
        judges = [study.space.sample(rng) for _ in range(arguments.judges)]
        rows = []
        for config in DESIGNS:
            settings = config.model_dump(include={"kind", "networks", "contexts", "context_kind"})
            designs = [make_design(study.space, config, seed, study.flops) for seed in range(arguments.starts)]
            found = pd.DataFrame([judged(evaluator, design, judges) for design in designs])
            rows.append({**settings, **found.median().round(3).to_dict()})
            if not arguments.json:
                print(rows[-1], flush=True)
    used = conditions(config=arguments.config, starts=arguments.starts, judges=arguments.judges)
    print(json.dumps({"designs": rows, "conditions": used}))


class Evaluator:
    """Measures networks of a study in this process, each once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        if not study.has_flops:
            study.store.add_costs(profile_blocks(study.family, study.config.profile, ["flops"]))
            study.refresh()
        self.scorer = study.scorer
        self.scorer.prepare(lambda done, total, note: None)

    def table(self, genotypes: Sequence[Genotype]) -> EvaluationTable:
        """The networks' metrics, measured where the store does not hold them."""
        missing = self.study.missing(genotypes)
        if missing:
            self.study.store.add_evaluations(self.scorer.evaluate([Genotype.parse(text) for text in missing]))
            self.study.refresh()
        known = {row.genotype: row for row in self.study.evaluations()}
        return EvaluationTable.from_rows([known[str(genotype)] for genotype in genotypes])


def judged(evaluator: Evaluator, design: Design, judges: Sequence[Genotype]) -> dict[str, float]:
    """Agreement of a design's predictions with the judges that it does not hold."""
    study, space = evaluator.study, evaluator.study.space
    held = {function_id(space, genotype) for genotype in design.genotypes}
    apart = [genotype for genotype in dict.fromkeys(judges) if function_id(space, genotype) not in held]
    fitted, truth = evaluator.table(design.fit_genotypes), evaluator.table(apart)
    held_out, given = evaluator.table(design.held_out), study.config
    raw = fit(space, fitted, given.predict, base=design.base, flops=study.flops, seed=given.seed, held_out=held_out)
    as_in_a_study = raw.recalibrated(held_out)
    found = calibrate(raw, truth, lambda genotype: {"flops": study.flops.total(genotype)})
    return {
        "evaluations": len(fitted),
        "kendall": found.kendall,
        "spearman": found.spearman,
        "coverage_90": inside(as_in_a_study.predict_codes(raw.encoding.encode(apart)), truth),
        "coverage_90_raw": inside(raw.predict_codes(raw.encoding.encode(apart)), truth),
        "kendall_of_counting_flops": found.counts["flops"].kendall,
    }


def inside(predicted: tuple[np.ndarray, np.ndarray, np.ndarray], truth: EvaluationTable) -> float:
    """The share of measured networks inside their interval."""
    _, low_N, high_N = predicted
    metric_N = truth.sign * truth.metric_K
    return float(np.mean((metric_N >= low_N) & (metric_N <= high_N)))


if __name__ == "__main__":
    main()
