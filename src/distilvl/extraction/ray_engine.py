"""The engine `ray`: the same store as one process makes, by workers of a Ray cluster.

Ray Data hands out the blocks of which the store lacks something to a pool of actors; each loads the teacher once. The
actors write the shards themselves, with the same code as everyone who writes to a store. So embeddings travel once,
from the machine that made them to the disk, and not through this process; a shard is either there or not, however its
writer ends; and the same command without Ray can work on the store at the same time. The price is a disk that all
machines share, which is checked at the end.

A worker that is killed loses its block. Ray starts another worker and gives it the block again: where the shard was
written already, nothing is left to do, and otherwise the whole block is encoded again in the same calls of the teacher.
So the store has the bytes that one process would have written, as long as the teacher's bits do not depend on the
machine or on its number of threads; where they do, embeddings differ in float16's last bits.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilvl.errors import DistilvlError, require
from distilvl.extraction.encode import Extracted
from distilvl.extraction.ray_worker import RayWorker, Table, order_of
from distilvl.extraction.work import Block, Work
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.features.store import FeatureStore
from distilvl.io.progress import progress
from distilvl.pictures.limits import max_pixels


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


def extract_with_ray(
    spec: str, work: Work, out: str | Path, cluster: Cluster, *, skip_bad: bool = False
) -> tuple[FeatureStore, Extracted, Extracted]:
    """Fill the store `out` with the embeddings of all of `work`, with the teacher in many processes.

    The teacher is loaded by the workers only: they need its files, packages and `distilvl` itself. Relative paths start
    where this process is. Image files are read by the workers, other images are sent to them.

    Args:
        spec: the teacher's, as for `load_model`; not one behind an API.
        work: without crops.
        out: the store's folder, on a disk that all machines share.
        cluster: where to run.
        skip_bad: as for `extract_features`.

    Returns:
        The store, and what was done of images and of captions, as far as workers lived to tell it.

    Raises:
        DistilvlError: as `extract_features`; a cluster that cannot be joined, or disks that are not shared.
    """
    held = FeatureStore.open(out) if (Path(out) / MANIFEST_NAME).is_file() else None
    lacked = {block: list(block.keys) if held is None else block.missing(held) for block in work.blocks}
    lacking = {block: missing for block, missing in lacked.items() if missing}
    counts = {"image": 0, "text": 0}
    bad: dict[bytes, str] = {}
    with connected(cluster) as (ray, share), progress("teacher", sum(map(len, lacking.values()))) as ticker:
        constructor = (spec, str(out), str(Path.cwd()), skip_bad, max_pixels())
        for result in _results(ray, share, _orders(work, lacking), constructor):
            if result["error"]:
                raise DistilvlError(result["error"])
            counts[result["modality"]] += result["count"]
            bad |= dict(zip(result["bad"], result["reasons"], strict=True))
            ticker.advance(result["done"])
    return _complete(out, work, bad), Extracted(counts["image"], bad), Extracted(counts["text"])


def _orders(work: Work, lacking: dict[Block, list[bytes]]) -> Iterator[Table]:
    """What the workers are to do: an empty block at least, so that one compares its teacher with the store's."""
    if not lacking:
        yield order_of(Block("text", 0, ()), {})
    # A block of captions first, so that a fault of the text side does not come after all images.
    first = next((block for block in lacking if block.modality == "text"), None)
    for block, missing in sorted(lacking.items(), key=lambda one: one[0] is not first):
        if block.modality == "image":
            yield order_of(block, {key: work.images[key][0] for key in missing})
        else:
            yield order_of(block, {key: work.captions[key] for key in missing})


def _results(ray: Any, share: Share, orders: Iterator[Table], constructor: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """What the workers say of each of `orders`, in the order in which they are done."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Ray keeps the orders, on disk where memory is short; each is a block of its own, to be handed out, and again
    # after a worker's death, alone. That Ray starts new workers and hands out again without end is its default.
    results = ray.data.from_arrow_refs([ray.put(order) for order in orders]).map_batches(
        RayWorker,
        fn_constructor_args=constructor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=share.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
    )
    yield from results.iter_rows()


def _complete(out: str | Path, work: Work, bad: Mapping[bytes, str]) -> FeatureStore:
    """The store, which must hold all but the bad images as seen from here."""
    if (Path(out) / MANIFEST_NAME).is_file():
        store = FeatureStore.open(out)
        good = list(work.images.keys() - bad.keys())
        if not store.missing("image", good) and not store.missing("text", list(work.captions)):
            return store
    raise DistilvlError(
        f"the workers have finished, but the store {out} lacks what they wrote.",
        "Put --out on a disk that all machines of the Ray cluster share, under the same path.",
    )


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


def _ray(*, local: bool) -> Any:
    # Ray reads both when it is imported. The second one, despite its name, decides on every system whether a machine
    # calls itself 127.0.0.1, and then listens there alone, or by an address that others can reach.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = require("ray", extra="ray", why="the engine ray")
    require("ray.data", extra="ray", why="the engine ray")
    return ray


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


def share_of(machines: Sequence[Mapping[str, float]], workers: int | None) -> Share:
    """An even share of the cluster, such that as many of the `workers` as possible fit on its machines.

    `machines` are what Ray says each one has, such as `{"CPU": 8.0, "GPU": 1.0}`; `DistilvlError` when none has a core.
    """
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if not cores:
        raise DistilvlError("the Ray cluster has no machine with a free core.", "Start workers with `ray start`.")
    workers = workers or gpus or len(cores)
    on_one_machine = -(-workers // len(cores))
    on_one_gpu = -(-workers // gpus) if gpus else 0
    return Share(workers, max(1, min(cores) // on_one_machine), 1 / on_one_gpu if gpus else 0)
