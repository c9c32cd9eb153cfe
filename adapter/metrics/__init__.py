"""Metrics: pure functions from predictions and truth to figures, and how sure these are."""
