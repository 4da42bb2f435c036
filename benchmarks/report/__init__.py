"""Writes REPORT, its plots, and the table in README from the figures in benchmarks/results: `python -m benchmarks.report`."""
