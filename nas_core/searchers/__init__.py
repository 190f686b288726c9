"""Which networks to evaluate: the first ones (`designs`), and the next (one searcher per file). No torch."""

from nas_core.base.discovery import import_registered
from nas_core.searchers.searcher import SEARCHERS, Knowledge, Searcher

import_registered(__name__)

__all__ = ["SEARCHERS", "Knowledge", "Searcher"]
