"""Predicts every network of a space from few evaluated ones, and says how far to trust it.

``fit`` gives a ``Predictor``; ``calibrate`` holds it against networks it has
not seen; ``propose`` names the networks worth evaluating next; ``fit_paper`` is
MathNAS's own rule. No torch, no solver is imported here.
"""

from nas_core.prediction.calibration import Calibration, RankStatistics, calibrate
from nas_core.prediction.paper import PaperRule, fit_paper
from nas_core.prediction.predictor import Alternative, BlockEffect, Prediction, Predictor, ScoreTerms, fit
from nas_core.searchers.refinement import Refinement, Round, propose

__all__ = [
    "Alternative",
    "BlockEffect",
    "Calibration",
    "PaperRule",
    "Prediction",
    "Predictor",
    "RankStatistics",
    "Refinement",
    "Round",
    "ScoreTerms",
    "calibrate",
    "fit",
    "fit_paper",
    "propose",
]
