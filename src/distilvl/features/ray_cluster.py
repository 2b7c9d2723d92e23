"""A Ray cluster: joined where an address is given, else started on this machine, for this machine alone."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distilvl.errors import DistilvlError


@dataclass(frozen=True)
class Cluster:
    """Where to run, and how widely.

    Attributes:
        address: `HOST:PORT` of a cluster, or `auto` for the one that runs on this machine; that of the environment
            variable RAY_ADDRESS if not given; and where that is not set either, a cluster of this machine is started,
            which ends with the work.
        workers: how many load the teacher; if not given, one a GPU, or, of a cluster without any, one a machine.
    """

    address: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Share:
    """What every worker gets: of `workers` of them each has `cpus` cores and `gpus` (perhaps half a one)."""

    workers: int
    cpus: int
    gpus: float


def share_of(machines: Sequence[Mapping[str, float]], workers: int | None) -> Share:
    """An even share of the cluster, such that as many workers as possible find room on its machines.

    Args:
        machines: what Ray says each one has, such as `{"CPU": 8.0, "GPU": 1.0}`; those without cores are left out.
        workers: how many there shall be; see `Cluster`.

    Raises:
        DistilvlError: no machine has a core.
    """
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if not cores:
        raise DistilvlError("the Ray cluster has no machine with a free core.", "Start workers with `ray start`.")
    workers = workers or gpus or len(cores)
    on_one_machine = -(-workers // len(cores))
    on_one_gpu = -(-workers // gpus) if gpus else 0
    return Share(workers, max(1, min(cores) // on_one_machine), 1 / on_one_gpu if gpus else 0)


@contextmanager
def connected(cluster: Cluster) -> Iterator[tuple[Any, Share]]:
    """The package ray, connected, and each worker's share; disconnected (and stopped, if started here) at the end.

    A connection that the calling program has already is used and kept. A cluster that is started here listens on the
    loopback interface only, shows no dashboard and sends no usage statistics.

    Raises:
        DistilvlError: ray is not installed, or there is no cluster at the address.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    ray = _ray(local=address is None)
    if ray.is_initialized():
        yield ray, _share(ray, cluster)
        return
    try:
        _connect(ray, address, cluster.workers)
    # RuntimeError and ValueError: another version of Ray or Python there, or no address at all.
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DistilvlError(
            f"there is no Ray cluster to join at {address or 'this machine'}: {reason}.",
            "Check --ray-address, or leave it out to start one here.",
        ) from error
    try:
        yield ray, _share(ray, cluster)
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # As many cores as workers, so that those asked for are there on the smallest machine.
        cores = max(os.cpu_count() or 1, workers or 1)
        ray.init("local", num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        return
    host, _, port = address.rpartition(":")
    if "/" not in host and port.isdigit():
        # Ray itself would wait for minutes for somebody to listen there.
        socket.create_connection((host, int(port)), timeout=10).close()
    ray.init(address, **quiet)


def _share(ray: Any, cluster: Cluster) -> Share:
    return share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], cluster.workers)


def _ray(*, local: bool) -> Any:
    # Ray reads both when it is imported. The second one, despite its name, decides on every system whether a machine
    # calls itself 127.0.0.1, and then listens there alone, or by an address that others can reach.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise DistilvlError(
            f"the engine ray needs the package {error.name or 'ray'}.", "Install it: pip install 'distilvl[ray]'."
        ) from error
    return ray
