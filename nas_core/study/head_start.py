"""Extra training that gives comparisons as much compute as the winner had.

The winner's alternatives were distilled before it is trained. Networks that hold none of them, such as the model itself
or a narrower one, are trained longer by the same number of multiply-adds. Evaluations of the search do not count.
"""

from collections.abc import Mapping, Sequence

from nas_core.space.genotypes import Genotype
from nas_core.study.brought import workload_of
from nas_core.study.contestants import Candidate, has_own_blocks_only
from nas_core.study.study import Study
from nas_core.training.settings import OWN, TRAINING_PASSES


def more_epochs(
    study: Study, candidates: Sequence[Candidate], costs: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Name of a candidate -> epochs that it is trained beyond the recipe's; none of those that have had their share.

    ``costs`` are the candidates', ``flops`` among them.
    """
    late = [each for each in candidates if each.role not in ("winner", "point") and _begins_without(study, each)]
    spent = study.scorer.head_start(study.flops) if late else 0.0
    if not spent:
        return {}
    config = study.config
    examples, _ = workload_of(config).with_train_examples(config.train.train_examples).num_examples()
    teacher = config.train.recipe.teacher
    asked = study.flops.total(study.base) if teacher is not None and teacher.model == OWN else 0.0
    each = {candidate.name: TRAINING_PASSES * costs[candidate.name]["flops"] + asked for candidate in late}
    return {name: round(spent / (examples * flops), 2) for name, flops in each.items()}


def _begins_without(study: Study, candidate: Candidate) -> bool:
    """Whether none of its blocks has learnt anything yet beside what the base network knows."""
    return bool(candidate.remade) or has_own_blocks_only(study.snapshot, Genotype.parse(candidate.genotype))
