# `make demo` runs the main job, `make test` passes the tests; both from a fresh clone with Python and make alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/installed-demo
CLUSTER_STAMP := $(VENV)/installed-cluster
STAMP := $(VENV)/installed
BENCH_STAMP := $(VENV)/installed-bench
DIST_STAMP := $(VENV)/installed-dist

.PHONY: demo demo-cluster test test-quick test-faults mutants abort-hunt screenshots lint dist bench report clean

# kvzmq alone, so that nobody who has come for the demo waits for what the tests use.
$(DEMO_STAMP): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(CLUSTER_STAMP): $(DEMO_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[etcd]'
	touch $@

$(STAMP): $(DEMO_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	touch $@

$(DIST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dist]'
	touch $@

demo: $(DEMO_STAMP)
	$(BIN)/python clients/demo.py

demo-cluster: $(CLUSTER_STAMP)
	.ci/install-debian-packages etcd=etcd-server
	$(BIN)/python clients/demo_cluster.py

# Three at a time on any machine: most tests wait for a server, a disk or a clock at any moment.
WORKERS ?= 3

test: $(DIST_STAMP) debian-packages lint
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -q -n $(WORKERS) --reruns 1
	$(BIN)/coverage combine --quiet 2>build/coverage/left-by-the-killed
	$(BIN)/coverage report

.PHONY: debian-packages
debian-packages:
	.ci/install-debian-packages catalog_server=coop-computing-tools strace=strace mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mount=mount faketime=faketime ip=iproute2 prometheus=prometheus systemd-analyze=systemd logrotate=logrotate etcd=etcd-server etcdctl=etcd-client openssl=openssl chromium=chromium chromedriver=chromium-driver

test-quick: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/unit tests/contract

# The whole matrix of faults, and every planted fault: about an hour.
test-faults: $(DIST_STAMP) debian-packages
	KVZMQ_FULL=1 $(BIN)/python -m pytest -q -n $(WORKERS) tests

mutants: $(STAMP) debian-packages
	$(BIN)/python tests/mutants.py

# 100,000 disconnects in every state, at a server and at clients of it: does libzmq abort one? About ten minutes.
abort-hunt: $(STAMP)
	$(BIN)/python tests/abort_hunt.py

# Every page of the dashboard at two widths, dark and light, with clients at work; docs/images gets those of the docs.
screenshots: $(STAMP) debian-packages
	$(BIN)/python tests/screenshots.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The messages of etcd's API, from the .proto beside them; they are checked in.
.PHONY: stubs
stubs: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. kvzmq/store/etcd/messages.proto

# What would be published: the sdist, and the wheel built from it. `pip install dist/kvzmq-*.whl` installs it today.
dist: $(DIST_STAMP)
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

# Measure beside what people use instead, and write REPORT; QUICK=1 takes minutes less and shows less.
bench: $(BENCH_STAMP)
	.ci/install-debian-packages redis-server=redis-server memcached=memcached etcd=etcd-server || echo "*** not all peers can be had: they will be skipped"
	$(BIN)/python -m benchmarks.run $(if $(QUICK),--quick)

report: $(BENCH_STAMP)
	.ci/install-debian-packages redis-server=redis-server memcached=memcached etcd=etcd-server || echo "*** not all peers can be had: they will be skipped"
	$(BIN)/python -m benchmarks.report $(if $(QUICK),--quick)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
