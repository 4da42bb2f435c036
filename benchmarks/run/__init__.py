"""Takes the measurements, into benchmarks/results: `python -m benchmarks.run`.

suite        the command line and the order of experiments
experiments, startup, storage, testperf, watches, curve, metrics, backup, cluster    what is measured, one function
             an experiment
measuring    rounds, turns, medians; what one measurement writes; facts: of the machine and the versions
peers        the contenders: how each is started and what it promises; tables: their clients under one set of names
drivers, async_drivers, cluster_drivers    what a worker process does as a client; open_tables: what it keeps between
             measurements
workers      those processes; work: the keys and values they use
processes    the servers' processes; etcd_nodes: a cluster of three, and kvzmq servers on it
baselines    servers with no table or one sync a change, to compare with; sockets: bare connections
watching, hostile_peers, worst_request     programs of their own: what watching a server costs it, what attackers cost
             the others, and the costliest requests; backup is one, too

Nothing here knows how the figures are written down (benchmarks.report).
"""
