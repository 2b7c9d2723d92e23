from __future__ import annotations

import io
import logging
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from distilvl.data import load_any, load_dataset
from distilvl.data.remote import RemotePath, RemoteReadError, is_remote, remote_files, remote_path
from distilvl.data.shards import EpochOrder, counts, open_split
from distilvl.data.shards.tar import samples
from distilvl.errors import DistilvlError

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "distilvl" / "shard-counts"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def png(k: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (k, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(numbers: range) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for k in numbers:
            for name, content in ((f"{k:03d}.png", png(k)), (f"{k:03d}.txt", f"one {k}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def table(numbers: range) -> bytes:
    buffer = io.BytesIO()
    columns = {"image": [png(k) for k in numbers], "caption": [f"one {k}" for k in numbers]}
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


SHARDS = {"train-0.tar": tar(range(5)), "train-1.tar": tar(range(5, 12)), "val-0.tar": tar(range(12, 15))}


class Server(ThreadingHTTPServer):
    """Files with ETags, of which it gives parts; it hangs up on the file `dropped` once byte 4,096 is asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.dropped, self.asked = files, "", list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        data = self.server.files.get(self.path.strip("/"))
        if data is None:
            self.send_error(404)
            return
        self.server.asked.append(f"{self.command} {self.path}")
        first, last = 0, len(data) - 1
        if asked := self.headers.get("Range"):
            first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if body:
            cut = self.path.strip("/") == self.server.dropped and last > 4096
            self.wfile.write(data[first : first + 100] if cut else data[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with Server(dict(SHARDS)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_addresses() -> None:
    assert is_remote("s3://bucket/a.tar")
    assert not any(map(is_remote, ("photos/", "/a", "C:\\a", "c://a", "parquet:s3://b/a", "pipe:curl https://h/a")))
    path = remote_path("local:///data/a.b.tar")
    assert (str(path), path.name) == ("file:///data/a.b.tar", "a.b.tar")
    assert (str(path.parent), path.parts) == ("file:///data", ("file:", "data", "a.b.tar"))


@pytest.mark.parametrize(
    "url",
    [f"https://me:{SECRET}@host/a.parquet", f"https://{SECRET}@host/a.parquet", f"https://host/a.parquet?sig={SECRET}"],
)
@pytest.mark.parametrize("form", ["{}", "parquet:{}", "webdataset:{}", "webdataset:shards?val={}", "coco:{}"])
def test_passwords_are_refused_and_not_shown(url: str, form: str) -> None:
    with pytest.raises(DistilvlError) as caught:
        load_dataset(form.format(url))
    assert SECRET not in str(caught.value)


def test_signatures_of_redirects_are_not_shown(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, path: str) -> None:
        raise RuntimeError(f"404, url='https://me@elsewhere/a?sig={SECRET}', gone.")

    monkeypatch.setattr(type(memory), "info", refuse)
    with pytest.raises(RemoteReadError, match=r"a\.tar: 404, url='https://elsewhere/a', gone\. Check keys") as caught:
        remote_path("memory://a.tar").version()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("kind", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("https", "aiohttp")])
def test_a_missing_package_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(
        DistilvlError, match=rf"{kind}:// needs the package {package}\. Install it: pip install {package}"
    ):
        load_dataset(f"parquet:{kind}://bucket/a.parquet")


def test_unknown_and_chained_addresses() -> None:
    with pytest.raises(DistilvlError, match="Protocol not known: nothing"):
        load_dataset("webdataset:nothing://a.tar")
    with pytest.raises(DistilvlError, match="is a chain of addresses"):
        load_dataset("webdataset:zip://a.tar::memory://b.zip")


@pytest.mark.parametrize(
    "source",
    ["s3://b/photos/", "https://h/captions.jsonl", "coco:gs://b", "unpaired:s3://b,t.txt", "unpaired:d,s3://b/t.txt"],
)
def test_all_else_stays_local(source: str) -> None:
    with pytest.raises(DistilvlError, match=r"is remote, and only Parquet and WebDataset .*Copy it to this machine"):
        load_any(source)


@pytest.mark.parametrize(
    "source", ["memory://d/train-a.parquet", "parquet:memory://d", "parquet:memory://d/*.parquet?image=image"]
)
def test_parquet(source: str, memory: Any) -> None:
    memory.pipe("/d/train-a.parquet", table(range(5)))
    dataset = load_dataset(source)
    assert dataset.splits == {"train": 5}
    assert [record.captions for record in dataset] == [(f"one {k}",) for k in range(5)]
    assert [record.image.read() for record in dataset] == [png(k) for k in range(5)]


def test_parquet_that_is_missing_broken_or_of_paths(memory: Any) -> None:
    with pytest.raises(RemoteReadError, match=r"there is no memory:///d/a\.parquet"):
        load_dataset("memory://d/a.parquet")
    with pytest.raises(DistilvlError, match=r"memory://d holds no \*\.parquet"):
        load_dataset("parquet:memory://d")
    memory.pipe("/d/a.parquet", b"PAR1")
    with pytest.raises(DistilvlError, match=r"cannot read memory:///d/a\.parquet as Parquet"):
        load_dataset("memory://d/a.parquet")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": ["/etc/a.png"], "caption": ["one"]}), buffer)
    memory.pipe("/d/a.parquet", buffer.getvalue())
    with pytest.raises(DistilvlError, match="none of them holds images"):
        load_dataset("memory://d/a.parquet")


def test_parquet_that_goes_away_is_not_skipped(memory: Any) -> None:
    memory.pipe("/d/a.parquet", table(range(3)))
    dataset = load_dataset("memory://d/a.parquet", skip_bad=True)
    memory.rm("/d/a.parquet")
    with pytest.raises(RemoteReadError, match=r"a\.parquet, row 2: there is no memory:///d/a\.parquet"):
        dataset[2].image.read()


@pytest.fixture
def tars(memory: Any) -> Any:
    for name, data in SHARDS.items():
        memory.pipe(f"/d/{name}", data)
    return memory


@pytest.mark.parametrize("place", ["memory://d", "memory:///d/", "memory://d/*.tar?val=memory:///d/val-0.tar"])
def test_shards(place: str, tars: Any) -> None:
    tars.pipe("/d/.hidden.tar", b"no tar")
    dataset = load_dataset(f"webdataset:{place}")
    assert dataset.splits == {"train": 12, "val": 3}
    assert [record.image_id for record in dataset][-1] == "val-0/014"
    assert [record.image.read() for record in dataset] == [png(k) for k in range(15)]


def test_braces_and_folders(tars: Any) -> None:
    pytest.importorskip("braceexpand")
    assert load_dataset("webdataset:memory://d/train-{0..1}.tar").splits == {"train": 12}
    tars.pipe("/d/test/0.tar", tar(range(2)))
    assert load_dataset("webdataset:memory://d").splits == {"train": 12, "val": 3, "test": 2}
    with pytest.raises(RemoteReadError, match=r"there is no memory:///d/train-2\.tar"):
        load_dataset("webdataset:memory://d/train-{0..2}.tar", skip_bad=True)
    with pytest.raises(DistilvlError, match="names no shards"):
        load_dataset("webdataset:memory://nothing")


def test_counts_are_kept_in_the_cache_folder(tars: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        counts, "samples", lambda path, **named: read.append(path.name.removesuffix(".tar")) or samples(path, **named)
    )
    assert [len(open_split("webdataset:memory://d", "train")) for _ in range(2)] == [12, 12]
    assert read == ["train-0", "train-1"]
    assert len(list(cache.iterdir())) == 1
    assert set(tars.store) == {f"/d/{name}" for name in SHARDS}
    tars.pipe("/d/train-0.tar", SHARDS["train-1.tar"])
    assert len(open_split("webdataset:memory://d", "train")) == 14
    assert read == ["train-0", "train-1", "train-0"]


def test_an_epoch_in_this_process(tars: Any) -> None:
    order = EpochOrder(open_split("webdataset:memory://d", "train"), 4, seed=0)
    keys = [sample.key for batch in order.epoch(0, range(order.batches)) for sample in batch]
    assert sorted(keys) == [f"{k:03d}" for k in range(12)]


class _Keys(IterableDataset[list[str]]):
    def __init__(self, order: EpochOrder) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[str]]:
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        for batch in self.order.epoch(0, range(worker.id, self.order.batches, worker.num_workers)):
            yield [sample.key for sample in batch]


@pytest.mark.parametrize("kind", ["file", "http"])
def test_an_epoch_in_two_processes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "http":
        place = request.getfixturevalue("server").url + "/train-{0..1}.tar"
        pytest.importorskip("braceexpand")
    else:
        place = f"file://{tmp_path}/shards"
        (tmp_path / "shards").mkdir()
        for name, data in SHARDS.items():
            (tmp_path / "shards" / name).write_bytes(data)
    order = EpochOrder(open_split(f"webdataset:{place}", "train"), 3, seed=0)
    loader = DataLoader(_Keys(order), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(key for batch in loader for key in batch) == [f"{k:03d}" for k in range(12)]


def test_https_reads_no_more_than_it_needs(server: Server) -> None:
    dataset = load_dataset(f"webdataset:{server.url}/val-0.tar")
    assert dataset.splits == {"val": 3}
    server.asked.clear()
    assert dataset[1].image.read() == png(13)
    assert server.asked == ["GET /val-0.tar"]
    assert remote_path(f"{server.url}/val-0.tar").version() == (
        len(SHARDS["val-0.tar"]),
        f'"{hash(SHARDS["val-0.tar"])}"',
    )
    with pytest.raises(RemoteReadError, match=r"there is no http://127.*/val-1\.tar"):
        load_dataset(f"webdataset:{server.url}/val-1.tar")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_dropped_connection_names_shard_and_record_and_is_no_damage(
    server: Server, skip_bad: bool, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsspec.implementations.http.HTTPFileSystem._open", _with_small_blocks())
    url = f"{server.url}/train-0.tar"
    server.dropped = "train-0.tar"
    with caplog.at_level(logging.INFO, "distilvl"), pytest.raises(RemoteReadError) as caught:
        open_split(f"webdataset:{url}", "train", skip_bad=skip_bad)
    message = str(caught.value)
    assert re.match(rf"near record [1-4] \('00[1-4]'\): cannot read {url}: ", message)
    assert not cache.exists()
    server.dropped = ""
    assert len(open_split(f"webdataset:{url}", "train")) == 5


def _with_small_blocks() -> Any:
    from fsspec.implementations.http import HTTPFileSystem

    usual = HTTPFileSystem._open

    def small(self: Any, path: str, mode: str = "rb", block_size: int | None = None, **named: Any) -> Any:
        return usual(self, path, mode, block_size=1024, **named)

    return small


def test_a_short_answer_is_an_error(memory: Any) -> None:
    memory.pipe("/a.tar", bytes(100))
    with RemotePath("memory:///a.tar").open("rb") as file:
        assert (len(file.read(60)), len(file.read()), file.read(1)) == (60, 40, b"")
        file.seek(0)
        memory.store["/a.tar"].truncate(30)
        with pytest.raises(RemoteReadError, match=r"cannot read memory:///a\.tar: 30 of 100 bytes came"):
            file.read()


def test_a_server_that_gives_no_parts(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/a.tar", bytes(100))
    monkeypatch.setattr(type(memory), "cat_file", lambda *_, **__: bytes(100))
    with pytest.raises(RemoteReadError, match="does not give parts of files"):
        RemotePath("memory:///a.tar").read_range(0, 10)


def test_a_pattern_within_a_folder(memory: Any) -> None:
    for name in ("a/1.tar", "a/b/2.tar", "a/b/3.txt"):
        memory.pipe(f"/{name}", b"")
    assert [str(path) for path in remote_files("memory://a", ".tar", ("**/*",))] == [
        "memory:///a/1.tar",
        "memory:///a/b/2.tar",
    ]
    assert [path.name for path in remote_files("memory://a/b/[0-9].t*", ".tar", ())] == ["2.tar", "3.txt"]
