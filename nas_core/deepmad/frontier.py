"""The best score over a range of one limit."""

from dataclasses import replace
from typing import Any

import numpy as np

from nas_core.base.errors import ConfigError
from nas_core.deepmad.domain import Domain, Limits, limit_values
from nas_core.deepmad.formulas import Objective
from nas_core.deepmad.solver import Design, design

LEAST_SHARE = 0.4  # the sweep goes from this share of the limit up to the limit


def sweep(
    domain: Domain, limits: Limits, objective: Objective, name: str, points: int, **settings: Any
) -> list[Design]:
    """Designs at ``points`` values of the limit ``name``, geometrically up to the given one; the others stay.

    Raises:
        ConfigError: if the limit is not set.
        InfeasibleError: if some point has no structure.
    """
    known = limit_values(limits)
    if name not in known:
        raise ConfigError("--frontier", repr(name), f"a limit that is set: {', '.join(known) or 'none is'}")
    values = known[name] * np.geomspace(LEAST_SHARE, 1.0, points)
    exact = [float(value) if name == "rho" else round(value) for value in values]
    return [design(domain, replace(limits, **{name: value}), objective, **settings) for value in exact]  # type: ignore[arg-type]
