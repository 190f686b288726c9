"""What a study knows as pandas frames, for notebooks. pandas is imported when the first is asked for."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from nas_core.base.errors import IncompleteTableError
from nas_core.space.genotypes import Genotype
from nas_core.study.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd


Role = Literal["base", "design", "held-out", "verification", "other"]  # what a network was evaluated for


def evaluations(known: Snapshot) -> "pd.DataFrame":
    """One row per evaluation, with the network's role in the design, and its costs where all are known."""
    import pandas as pd

    rows, are_priced = [], _are_priced(known)
    for row in known.evaluations:
        genotype = Genotype.parse(row.genotype)
        costs = known.costs_of(genotype) if are_priced else {}
        rows.append({**asdict(row), "role": role_of(genotype, known), **costs})
    return pd.DataFrame(rows)


def _are_priced(known: Snapshot) -> bool:
    try:
        return bool(known.cost_tables)
    except IncompleteTableError:
        return False


def role_of(genotype: Genotype, known: Snapshot) -> Role:
    """What the design evaluated a network for; else ``verification``, and ``other`` where the design is not known."""
    if not known.has_flops:
        return "other"
    if genotype == known.design.base:
        return "base"
    if genotype in known.design.held_out:
        return "held-out"
    return "design" if genotype in known.design.genotypes else "verification"


def costs(known: Snapshot) -> "pd.DataFrame":
    """One row per price: of a block, of what all networks have, or of a whole network."""
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in known.costs])


def effects(known: Snapshot) -> "pd.DataFrame":
    """One row per block: what taking it in place of the base's does to the metric, with its interval."""
    import pandas as pd

    positions = known.space.positions
    rows = [
        {
            **asdict(effect),
            "position_name": positions[effect.position].name,
            "block": str(positions[effect.position].blocks[effect.choice]),
        }
        for effect in known.fitted.effects()
    ]
    return pd.DataFrame(rows)
