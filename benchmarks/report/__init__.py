"""Writes REPORT, its plots and the table in README from benchmarks/results: `python -m benchmarks.report`.

It may import what measures, for names and to measure first; what measures does not know it.
"""
