"""The engine `ray`: the same store as one process makes, by workers of a Ray cluster; docs/cluster.md.

Ray Data hands out the blocks of which the store lacks something to a pool of actors, again after a worker's death; each
loads the teacher once and writes whole shards itself, to a disk that all machines share. So the store has the bytes of
one process, as long as the teacher's bits do not depend on the machine or on its number of threads.
"""

import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from distilvl.data.records import FileImage, ImageSource
from distilvl.errors import DistilvlError, one_line, require
from distilvl.extraction.encode import Extracted, fill_captions, fill_images
from distilvl.extraction.work import Block, Work
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import KEY_BYTES
from distilvl.io.progress import Silence, progress
from distilvl.models import load_teacher
from distilvl.pictures.limits import max_pixels, set_max_pixels
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import checked

_SHARED = "disk that all machines share, under the same path"

Table: TypeAlias = Any
"""A `pyarrow.Table`; that package, which comes with Ray Data, has no types."""


@dataclass(frozen=True)
class Cluster:
    """Where to run, and how widely.

    `address` is `HOST:PORT` of a cluster, or `auto` for the one that runs on this machine; if not given, that of the
    environment variable RAY_ADDRESS, or else a cluster of this machine is started, which ends with the work. `workers`
    is how many load the teacher; if not given, one a GPU, or, of a cluster without any, one a machine.
    """

    address: str | None = None
    workers: int | None = None


class Share(NamedTuple):
    """What every worker gets: of `workers` of them each has `cpus` cores and `gpus` (perhaps half a one)."""

    workers: int
    cpus: int
    gpus: float


def extract_with_ray(
    spec: str, work: Work, out: str | Path, cluster: Cluster, *, skip_bad: bool = False
) -> tuple[FeatureStore, Extracted, Extracted]:
    """Fill the store `out` with the embeddings of all of `work`, without crops, by a teacher in many processes.

    The teacher, which may not be behind an API, is loaded by the workers only: they need its files, packages and
    `distilvl` itself. Relative paths start where this process is. Image files are read by the workers, other images are
    sent to them. Gives the store, and what was done of images and of captions, as far as workers lived to tell it.
    `DistilvlError` as `extract_features`; a cluster that cannot be joined, or disks that are not shared.
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
    remedy = "Put --out on a disk that all machines of the Ray cluster share, under the same path."
    raise DistilvlError(f"the workers have finished, but the store {out} lacks what they wrote.", remedy)


@contextmanager
def connected(cluster: Cluster) -> Iterator[tuple[Any, Share]]:
    """The package ray, connected, and each worker's share; disconnected (and stopped, if started here) at the end.

    A connection that the calling program has already is used and kept. A cluster that is started here listens on the
    loopback interface only, shows no dashboard and sends no usage statistics. `DistilvlError` where ray is not
    installed, or there is no cluster at the address.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    # Ray reads both when it is imported. The second one, despite its name, decides on every system whether a machine
    # calls itself 127.0.0.1, and then listens there alone, or by an address that others can reach.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = require("ray", extra="ray", why="the engine ray")
    require("ray.data", extra="ray", why="the engine ray")
    connected_before = ray.is_initialized()
    try:
        if not connected_before:
            _connect(ray, address, cluster.workers)
    # RuntimeError and ValueError: another version of Ray or Python there, or no address at all.
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"there is no Ray cluster to join at {address or 'this machine'}: {one_line(error, 200)}."
        raise DistilvlError(problem, "Check --ray-address, or leave it out to start one here.") from error
    try:
        yield ray, share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], cluster.workers)
    finally:
        if not connected_before:
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


@dataclass(frozen=True)
class SentImage:
    """An image as it came with its block; without `data` it is a file that was there when the command began."""

    name: str
    data: bytes | None

    def read(self) -> bytes:
        """The encoded image. A `DistilvlError` otherwise: it is the disk that is bad, not the image."""
        try:
            return Path(self.name).read_bytes() if self.data is None else self.data
        except OSError as error:
            problem = f"the Ray worker on {socket.gethostname()} cannot read the image {self.name}: {error.strerror}."
            raise DistilvlError(problem, f"Keep the images on a {_SHARED}.") from error


def order_of(block: Block, lacking: dict[bytes, ImageSource | str]) -> Table:
    """`block`, whole since its lease is that of all its keys, on its way to a worker: a table of one row.

    Of the items that the store is `lacking` the captions travel, and of images the bytes, or of files just the path.
    `BadImageError` for an image that is no file and cannot be read.
    """
    pa = importlib.import_module("pyarrow")
    item = pa.struct([("key", pa.binary()), ("text", pa.large_string()), ("data", pa.large_binary())])
    fields = {"modality": pa.string(), "number": pa.int64(), "keys": pa.binary(), "items": pa.large_list(item)}
    items = [{"key": key, **_sent(value)} for key, value in lacking.items()]
    row = {"modality": block.modality, "number": block.number, "keys": b"".join(block.keys), "items": items}
    return pa.Table.from_pylist([row], schema=pa.schema(fields))


def _sent(item: ImageSource | str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item, "data": None}
    return {"text": item.name, "data": None if isinstance(item, FileImage) else item.read()}


class RayWorker:
    """A callable for `ray.data.Dataset.map_batches`; Ray makes one in each process, and a new one for a dead one.

    It loads the teacher `spec` in the folder where the command was given, and takes images of at most `most_pixels`. A
    `DistilvlError` is part of the result: raised here, it would reach the user as Ray's traceback.
    """

    def __init__(self, spec: str, store: str, folder: str, skip_bad: bool, most_pixels: int | None = None) -> None:
        if most_pixels is not None:
            set_max_pixels(most_pixels)
        self._skip_bad = skip_bad
        self._error = ""
        try:
            try:
                os.chdir(folder)
            except OSError as error:
                problem = f"the Ray worker on {socket.gethostname()} cannot enter {folder}: {error.strerror}."
                raise DistilvlError(problem, f"Run the command from a folder on a {_SHARED}.") from error
            self._teacher: Teacher = checked(load_teacher(spec))
            if isinstance(self._teacher, PiecewiseTeacher):
                name = self._teacher.name
                problem = f"the teacher {name!r} is behind an API, whose limits hold for all workers together."
                raise DistilvlError(problem, "Use --engine local, which sends several requests at a time.")
            self._store = FeatureStore.create(store, Manifest.of_teacher(self._teacher))
        except DistilvlError as error:
            self._error = str(error)

    def __call__(self, order: Table) -> Table:
        """Fill the block of `order` (see `order_of`), and say how that went, in one row.

        It has the block's `modality`; how many items of the order are `done` with, and the `count` of those that were
        encoded now; the keys of `bad` images and the `reasons`; and an `error`, empty if there was none.
        """
        row, filled, problem = order.to_pylist()[0], Extracted(), self._error
        if not problem:
            try:
                filled = self._fill(row)
            except DistilvlError as error:
                problem = str(error)
        result = {"modality": row["modality"], "done": len(row["items"]), "count": filled.count}
        result |= {"bad": list(filled.bad), "reasons": list(filled.bad.values()), "error": problem}
        pa = importlib.import_module("pyarrow")
        fields = {"modality": pa.string(), "done": pa.int64(), "count": pa.int64(), "bad": pa.list_(pa.binary())}
        fields |= {"reasons": pa.list_(pa.string()), "error": pa.string()}
        return pa.Table.from_pylist([result], schema=pa.schema(fields))

    def _fill(self, row: dict[str, Any]) -> Extracted:
        keys = row["keys"]
        cut = tuple(keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))
        blocks = [Block(row["modality"], row["number"], cut)]
        # What is done is counted where the results arrive.
        if row["modality"] == "text":
            captions = {item["key"]: item["text"] for item in row["items"]}
            return fill_captions(self._teacher, self._store, blocks, captions, Silence())
        images = {item["key"]: SentImage(item["text"], item["data"]) for item in row["items"]}
        return fill_images(self._teacher, self._store, blocks, images, Silence(), skip_bad=self._skip_bad)
