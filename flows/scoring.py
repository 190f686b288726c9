"""Stage `score`: evaluate the design's networks, from which block effects are derived."""

from prefect import flow

from flows.stage import stage_run
from nas_core.searchers.designs import Design
from nas_core.study.config import StudyConfig
from nas_core.study.stages import DESIGN
from tasks.profiling import profile
from tasks.scoring import evaluate, prepare_scorer


@flow(name="score", flow_run_name="score-{config.name}", validate_parameters=True)
def score(config: StudyConfig, root: str) -> None:
    """Evaluate what the store does not hold yet of the design: its networks and the held-out ones."""
    with stage_run(config, root, "score") as run:
        profile(run.study, ["flops"])  # the design's base and contexts are named by their FLOPs
        design = run.study.design
        run.study.outputs.write(DESIGN, design_table(design))
        genotypes = {str(genotype): None for genotype in design.genotypes}  # in order, and quick to look up
        if run.study.missing(design.genotypes):
            prepare_scorer(run.study)
        run.count(genotypes, evaluate(run.study, list(genotypes), "score"))
        run.device = [row for row in run.study.evaluations() if row.genotype in genotypes][-1].device


def design_table(design: Design) -> dict[str, object]:
    """The design as JSON: role -> genotypes."""
    roles = {"contexts": design.contexts, "swaps": design.swaps, "held_out": design.held_out}
    return {"base": str(design.base), **{name: list(map(str, networks)) for name, networks in roles.items()}}
