"""The measurements behind REPORT.

    make bench                                 measure everything into benchmarks/results/*.csv
    make report                                the same, and write REPORT and its plots from it
    python -m benchmarks.run --only batches    one experiment
    python -m benchmarks.report --from-results write REPORT again, without measuring

How a figure comes about: contenders take turns within each round, there are several rounds, and what is
reported is the median over the rounds with the least and the greatest beside it. A ratio of two contenders
is the median of the rounds' ratios. Each contender is run as its users run it for the same promise; where
the promises differ, the report says how. Everything listens on the loopback interface only, keeps its files
in a temporary directory, and ends with the run.
"""
