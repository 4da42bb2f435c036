"""Takes the measurements: `python -m benchmarks.run`. It does not know how they are written down (benchmarks.report)."""
