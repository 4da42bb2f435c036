"""The cluster that tests of the log in etcd use: what they rely on, tried with the real thing."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from support.etcd_cluster import EtcdCluster, EtcdFailed, EtcdNode
from support.servers import PATIENCE_S


def test_the_session_s_cluster_has_three_healthy_nodes_and_one_leader(
    etcd_cluster: EtcdCluster, etcd_name: str
) -> None:
    assert len(etcd_cluster.nodes) == 3
    assert all(node.healthy for node in etcd_cluster.nodes)
    assert len(etcd_cluster.followers()) == 2
    etcd_cluster.ctl("put", f"{etcd_name}/a", "1")
    for node in etcd_cluster.nodes:
        assert etcd_cluster.ctl("get", "--print-value-only", f"{etcd_name}/a", nodes=[node]) == "1\n"


def test_a_killed_leader_is_replaced_and_comes_back_with_its_data(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with EtcdCluster(tmp_path / "etcd") as cluster:
        started_s = time.monotonic() - began_s
        cluster.ctl("put", "a", "1")
        first = cluster.leader()
        first.kill()
        second = cluster.leader()
        assert second is not first
        second.pause()
        with pytest.raises(EtcdFailed, match="a healthy cluster"):
            cluster.wait_until_healthy(0.1)
        second.resume()
        first.start()
        cluster.wait_until_healthy()
        cluster.restart()
        assert cluster.ctl("get", "--print-value-only", "a") == "1\n"
        assert "WARN" in cluster.logs() or "warn" in cluster.logs()
    assert not any(node.running for node in cluster.nodes)
    assert started_s < PATIENCE_S, f"it took {started_s:.1f} s to start"


@pytest.mark.parametrize(
    "answer", [b"", b"\r\n", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_node_that_breaks_off_its_answer_is_one_that_does_not_answer(answer: bytes, tmp_path: Path) -> None:
    """As one does that is killed while somebody asks. Seen red with OSError alone: BadStatusLine, IncompleteRead."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = EtcdNode("etcd1", tmp_path, wrapper=("sh", "-c", "exec sleep 600"))
        node.metrics_port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        node.start()
        try:
            assert not node.healthy and node.metric("etcd_server_is_leader") is None
        finally:
            node.kill()
            thread.join()


def test_a_cluster_with_tls_and_passwords_refuses_those_without(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd", tls=True, auth=True) as cluster:
        cluster.ctl("put", "a", "1")
        tls, cluster.tls = cluster.tls, None
        with pytest.raises(EtcdFailed):
            cluster.ctl("get", "a", "--command-timeout", "2s")
        cluster.tls, cluster._has_auth = tls, False
        with pytest.raises(EtcdFailed, match="permission denied"):
            cluster.ctl("get", "a")
