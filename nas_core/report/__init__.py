"""The report of a study: figures and one self-contained page, made from a summary of its tables.

Matplotlib and jinja2 load when the first page is rendered, not on import.
"""

from nas_core.report.figures import save_figures
from nas_core.report.page import render_page, report_files, write_report
from nas_core.report.summary import StudySummary
from nas_core.report.text import format_metric, format_quantity, summary_table

__all__ = [
    "StudySummary",
    "format_metric",
    "format_quantity",
    "render_page",
    "report_files",
    "save_figures",
    "summary_table",
    "write_report",
]
