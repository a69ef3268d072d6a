"""The report: one self-contained HTML page about a run."""

from lmmpress.reporting.page import report_of, write_report

__all__ = ["report_of", "write_report"]
