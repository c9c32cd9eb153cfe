"""The report: one self-contained HTML file of the tables, samples and origin of a run."""

from .page import Stage, report, report_run, write_report

__all__ = ["Stage", "report", "report_run", "write_report"]
