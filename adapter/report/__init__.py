"""The report: one self-contained HTML file of the tables, samples and origin of a run."""

from .page import Stage, report_run, write_report

__all__ = ["Stage", "report_run", "write_report"]
