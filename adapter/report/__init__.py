"""The report: one self-contained HTML file of the tables, samples and origin of a run."""

from .page import Stage, write_report

__all__ = ["Stage", "write_report"]
