"""The command with `--engine ray`: a cluster of two workers on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.extraction.ray_engine import Cluster, Share, _complete, _orders, connected, share_of
from distilvl.extraction.work import Work
from distilvl.features import FeatureStore

pytest.importorskip("ray.data")

TEACHER = textwrap.dedent(
    """
    import os, time
    import numpy as np

    class Slow:
        name, revision, dim = "slow", "1", 3

        def note(self, items):
            with open(os.environ["ASKED_LOG"], "a") as log:
                log.writelines(f"{os.getpid()} {item}\\n" for item in items)
            time.sleep(float(os.environ["PAUSE_S"]))

        def encode_images(self, images):
            rows = np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) + 1 for image in images])
            self.note(f"image {row.tolist()}" for row in rows)
            return rows

        def encode_texts(self, texts):
            self.note(f"text {text}" for text in texts)
            return np.array([[len(text), sum(map(ord, text)), 1.0] for text in texts])
    """
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A teacher, 1,100 pictures, of which one is broken, and 1,101 captions: three blocks of either."""
    (tmp_path / "slow.py").write_text(TEACHER)
    folder = tmp_path / "pictures"
    folder.mkdir()
    with (tmp_path / "list.jsonl").open("w") as file:
        for k in range(1100):
            Image.new("RGB", (4, 4), (k % 256, k // 256, 3)).save(folder / f"{k:04d}.png")
            captions = [f"picture {k}"] + ["a picture"] * (k == 0)
            file.write(json.dumps({"image": f"pictures/{k:04d}.png", "captions": captions}) + "\n")
    (folder / "0017.png").write_bytes(b"no image")
    return tmp_path


def command(place: Path, store: str, *more: str, pause: float = 0.0) -> subprocess.Popen[str]:
    words = ["--teacher", "slow.py:Slow", "--data", "list.jsonl", "--out", store, "--skip-bad", "--json", *more]
    # Ray lets its workers step back behind all else on the machine, which may be a lot where tests run.
    surroundings = {"ASKED_LOG": str(place / f"{store}.log"), "PAUSE_S": str(pause), "RAY_worker_niceness": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "distilvl", "features", *words],
        cwd=place,
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=550)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def asked(log: Path) -> tuple[Counter[str], list[int]]:
    """How often each item was asked, and by which processes, in order of their first question."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(item for _, item in lines), list(dict.fromkeys(int(process) for process, _ in lines))


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_worker_costs_nothing_but_time(place: Path):
    assert finish(command(place, "local"))["asked_texts"] == 1101
    process = command(place, "store", "--engine", "ray", "--ray-workers", "2", pause=4.0)
    # Each worker is in the middle of a block once both have asked; the first one dies in its second or third call.
    while len(asked(place / "store.log")[1]) < 2 or len(asked(place / "store.log")[0]) < 256:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.kill(asked(place / "store.log")[1][0], signal.SIGKILL)
    answer = finish(process)
    assert answer["skipped_images"] == ["pictures/0017.png"]
    assert files_of(place / "store") == files_of(place / "local")
    report = FeatureStore.open(place / "store").verify()
    assert (report.images, report.texts, report.repeated) == (1099, 1101, 0)
    items, processes = asked(place / "store.log")
    # The dead one's block was asked again, and by somebody else; nothing was asked a third time.
    assert len(items) == 2200
    assert max(items.values()) == 2
    assert len(processes) >= 2
    assert (answer["asked_images"], answer["asked_texts"]) == (1099, 1101)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_second_run_asks_nothing_but_still_knows_its_teacher(place: Path):
    finish(command(place, "store"))
    before = files_of(place / "store")
    answer = finish(command(place, "store", "--engine", "ray", "--ray-workers", "1"))
    assert (answer["asked_images"], answer["asked_texts"]) == (0, 0)
    assert files_of(place / "store") == before
    (place / "slow.py").write_text(TEACHER.replace('"1"', '"2"'))
    process = command(place, "store", "--engine", "ray", "--ray-workers", "1")
    _, err = process.communicate(timeout=550)
    assert process.returncode == 2
    assert "error: the store store was made by another teacher" in err
    assert "Traceback" not in err


def test_a_store_that_was_written_elsewhere(teacher, pictures, tmp_path: Path):
    from distilvl.extraction import extract_features

    work = Work.of(pictures, skip_bad=False, shard_size=4)
    with pytest.raises(DistilvlError, match=r"lacks what they wrote.*all machines"):
        _complete(tmp_path / "store", work, {})
    extract_features(teacher, pictures, tmp_path / "store", shard_size=4)
    assert _complete(tmp_path / "store", work, {}).counts == {"image": 11, "text": 13}
    next((tmp_path / "store").glob("image-*")).unlink()
    with pytest.raises(DistilvlError, match="lacks what they wrote"):
        _complete(tmp_path / "store", work, {})
    assert _complete(tmp_path / "store", work, dict.fromkeys(work.images, "bad"))


def test_a_block_of_captions_goes_out_before_the_images(pictures):
    work = Work.of(pictures, skip_bad=False, shard_size=5)
    orders = [order.to_pylist()[0] for order in _orders(work, {block: list(block.keys) for block in work.blocks})]
    assert [(order["modality"], order["number"]) for order in orders] == [
        ("text", 0), ("image", 0), ("image", 1), ("image", 2), ("text", 1), ("text", 2),
    ]  # fmt: skip


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
