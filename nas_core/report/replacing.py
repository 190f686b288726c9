"""A report is not replaced by one that knows less: what would be lost, and where an earlier report is kept."""

from collections.abc import Mapping
from typing import Any

from nas_core.base.errors import StoreError
from nas_core.base.identity import content_id
from nas_core.records.store import Store
from nas_core.report.collect import summarise
from nas_core.report.summary import StudySummary
from nas_core.report.text import format_count
from nas_core.study.stages import FIGURES, REPORT, SUMMARY
from nas_core.study.study import Study

SECTIONS = {  # of a report, as people call them
    "block_effects": "the blocks' effects",
    "selection": "the selection",
    "calibration": "the calibration",
    "verification": "the verification",
    "additivity": "the costs of whole networks",
    "training": "the training",
}
EARLIER = "reports"  # folder of the reports that were kept aside


def make_way(study: Study) -> str:
    """Keep the stored report aside where the next one knows less of a study that is complete; returns where.

    "" where nothing has to be kept.

    Raises:
        StoreError: if the next one would know less because stages are missing or stale; names what would be lost.
    """
    try:
        stored = study.store.read_json(SUMMARY)
    except (FileNotFoundError, StoreError):
        return ""
    gone = lost(stored if isinstance(stored, dict) else {}, summarise(study, SECTIONS))
    if not gone:
        return ""
    open_stages = [stage for stage in study.stages("train") if not study.status_of(stage).is_over]
    if open_stages:
        where, missing = study.store.uri(REPORT), ", ".join(open_stages)
        advice = f"`mathnas run` does what is open ({missing}); delete {SUMMARY} to have this report all the same."
        raise StoreError(where, f"a report with {', '.join(gone)}", "a report that knows as much", advice)
    return keep_aside(study.store, stored)


def lost(stored: Mapping[str, Any], new: StudySummary) -> list[str]:
    """What the stored report (its JSON) knows and the new one does not."""
    gone = [words for name, words in SECTIONS.items() if stored.get(name) and not getattr(new, name)]
    ids = stored.get("provenance") or {}
    alike = (ids.get("space_id"), ids.get("scorer_id")) == (new.provenance.space_id, new.provenance.scorer_id)
    count = stored.get("num_evaluated") or 0
    if count > new.num_evaluated and (alike or not new.num_evaluated):
        gone.insert(0, f"{format_count(count)} evaluated networks, not {format_count(new.num_evaluated)}")
    return gone


def keep_aside(store: Store, stored: Mapping[str, Any]) -> str:
    """Copy the stored report to a folder of its own below ``reports/``; returns the folder."""
    folder = f"{EARLIER}/{content_id({'report': stored})}"
    for path in (REPORT, SUMMARY, *store.paths(FIGURES)):
        if store.exists(path):
            store.write_bytes(f"{folder}/{path}", store.read_bytes(path))
    return folder
