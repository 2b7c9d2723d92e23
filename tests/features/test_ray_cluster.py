from __future__ import annotations

import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.extraction.ray_engine import Cluster, Share, connected, share_of


def test_one_worker_a_machine_without_gpus():
    assert share_of([{"CPU": 8.0}, {"CPU": 4.0}], None) == Share(2, 4, 0)


def test_one_worker_a_gpu():
    assert share_of([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 2.0}], None) == Share(4, 1, 1)


def test_more_workers_than_gpus_share_them():
    assert share_of([{"CPU": 16.0, "GPU": 2.0}], 3) == Share(3, 5, 0.5)


def test_a_machine_that_only_leads_has_no_share():
    assert share_of([{"memory": 1e9}, {"CPU": 0.0}, {"CPU": 2.0}], None) == Share(1, 2, 0)


def test_a_cluster_without_cores():
    with pytest.raises(DistilvlError, match="no machine with a free core"):
        share_of([{"memory": 1e9}], 2)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6), st.integers(1, 40))
def test_all_workers_find_room_unless_they_are_more_than_the_cores(cores: list[int], workers: int):
    share = share_of([{"CPU": float(number)} for number in cores], workers)
    assert share.workers == workers
    room = sum(number // share.cpus for number in cores)
    assert share.cpus == 1 or room >= workers


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    # What the import is told by the environment is put back, too.
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(DistilvlError, match=r"the engine ray needs the package ray.*distilvl\[ray\]"),
        connected(Cluster()),
    ):
        pass


def test_nobody_at_the_address():
    pytest.importorskip("ray.data")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    words = f"no Ray cluster to join at {address}: .*refused.*--ray-address"
    with pytest.raises(DistilvlError, match=words), connected(Cluster(address)):
        pass
