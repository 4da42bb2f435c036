"""`python -m benchmarks.run`."""

from benchmarks.run.suite import main

main()
