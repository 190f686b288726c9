"""Scorers rate networks: one protocol (``scorer.Scorer``), one file per scorer. No torch at import."""

from nas_core.base.discovery import import_registered
from nas_core.scoring.scorer import SCORERS, OnProgress, Scorer, Setting, Work

import_registered(__name__)

__all__ = ["SCORERS", "OnProgress", "Scorer", "Setting", "Work"]
