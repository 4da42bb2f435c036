"""Takes the measurements, into benchmarks/results: `python -m benchmarks.run`.

suite       the command line and the order of experiments
experiments startup storage testperf watches     what is measured, one function an experiment
measuring   rounds, turns, medians; what one measurement writes
peers       the contenders: how each is started and what it promises; tables: their clients under one set of names
drivers async_drivers   what a worker process does as a client; open_tables: what it keeps between measurements
workers     those processes; work: the keys and values they use
baselines   servers with no table or one sync a change, to compare with; sockets: bare connections
hostile_peers worst_request              two programs of their own: what attackers and the dearest requests cost

Nothing here knows how the figures are written down (benchmarks.report).
"""
