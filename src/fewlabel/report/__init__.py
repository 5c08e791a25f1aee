"""The report of a run: results.json -> one self-contained report.html."""

from fewlabel.report.page import write_report

__all__ = ["write_report"]
