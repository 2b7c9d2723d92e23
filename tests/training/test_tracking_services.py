"""Each tracker through its own library, without a network: what it kept is read back by that library."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distilvl.recipes import load_config
from distilvl.training.run_folder import MetricsLog
from distilvl.training.tracking import Tracking, load_trackers

Curves = dict[str, list[tuple[int, float]]]
LINES: list[dict[str, Any]] = [
    {"step": 10, "epoch": 0, "losses": {"cd": 2.5, "fd": 0.5}, "grad_norm": None},
    {"step": 20, "epoch": 0, "losses": {"cd": 1.5, "fd": math.nan}, "grad_norm": 3.0},
    {"step": 20, "epoch": 0, "val": {"image_to_text": {"r1": 40.0}, "rsum": 300.0}},
    {"step": 30, "epoch": 1, "losses": {"cd": 1.0, "fd": 0.25}, "grad_norm": 2.0},
]


def _run(folder: Path, name: str, resume_step: int, lines: list[dict[str, Any]]) -> None:
    config = load_config("demo", inputs={"data": "scenes"})
    folder.mkdir(exist_ok=True)
    tracking = Tracking(load_trackers([name]), folder, config)
    with MetricsLog(folder / "metrics.jsonl", resume_step, [tracking]) as log:
        for line in lines:
            log.write(line)


def _killed_and_resumed(folder: Path, name: str) -> None:
    """All lines twice: written, cut back to step 10, continued."""
    _run(folder, name, 0, LINES)
    _run(folder, name, 10, LINES[1:])


def _check(curves: Curves) -> None:
    assert curves["losses/cd"] == [(10, 2.5), (20, 1.5), (30, 1.0)]
    assert [step for step, _ in curves["losses/fd"]] == [10, 20, 30]
    assert curves["grad_norm"] == [(20, 3.0), (30, 2.0)]
    assert curves["val/rsum"] == [(20, 300.0)]
    assert curves["val/image_to_text/r1"] == [(20, 40.0)]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _killed_and_resumed(tmp_path / "run", "tensorboard")
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    tags = read.Tags()
    _check({tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags["scalars"]})
    (text,) = read.Tensors("config/text_summary")
    assert b"optimizer.lr: 0.004" in text.tensor_proto.string_val[0]


@pytest.mark.beside
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    _killed_and_resumed(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("distilvl").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["optimizer.lr"] == "0.004"
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    _check({key: [(metric.step, metric.value) for metric in history] for key, history in histories.items()})
    assert mlflow.active_run() is None


@pytest.mark.beside
def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    # In a process of its own: the library reads the place of its files when it is imported.
    curves = _in_process(
        tmp_path, "trackio", {"TRACKIO_DIR": str(tmp_path / "trackio")},
        """
import os
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("distilvl")
assert name.startswith("run-"), name
for row in SQLiteStorage.get_logs("distilvl", name):
    for key, value in row.items():
        if key not in ("step", "timestamp"):
            curves.setdefault(key, []).append((row["step"], value))
assert SQLiteStorage.get_run_config("distilvl", name)["optimizer.lr"] == 0.004
""",
    )  # fmt: skip
    _check(curves)


@pytest.mark.beside
def test_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    curves = _in_process(
        tmp_path, "wandb", {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)},
        """
from wandb.proto.wandb_internal_pb2 import Record
ids, text = set(), b""
for path in sorted(folder.rglob("*.wandb")):
    text += path.read_bytes()
    for data in services._records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.run.run_id:
            ids.add((record.run.run_id, record.run.display_name, record.run.project))
        items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for key, value in items.items():
            if not key.startswith("_"):
                curves.setdefault(key, []).append((items["_step"], value))
((_, name, project),) = ids
assert (name, project) == ("run", "distilvl"), ids
assert b"--secret-argument" not in text
""",
    )  # fmt: skip
    _check(curves)


def _records(data: bytes) -> Iterator[bytes]:
    """What W&B kept: LevelDB's log, blocks of 32 KiB with pieces of records, each after checksum, length and kind."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or a record's last piece
            yield parts
            parts = b""


def _in_process(tmp_path: Path, name: str, environment: dict[str, str], read: str) -> Curves:
    """The run and the reading in a child process, which prints the curves."""
    here = Path(__file__)
    code = f"""
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("services", {str(here)!r})
services = importlib.util.module_from_spec(spec)
spec.loader.exec_module(services)
folder, curves = Path({str(tmp_path / "run")!r}), {{}}
services._killed_and_resumed(folder, {name!r})
{read}
print("CURVES" + json.dumps(curves))
"""
    script = tmp_path / "child.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), "--secret-argument"],
        capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("CURVES")]
    return {key: [(step, value) for step, value in points] for key, points in json.loads(line[6:]).items()}
