"""Suites: banks, tasks and a report for many data sets, by one name."""
