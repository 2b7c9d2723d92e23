"""The real command, as a subprocess: the main job with a kill -9 in it, and every promised error."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
TEACHER = '''
import time
import numpy as np

class Slow:
    """Mean colours and letter counts by way of a fixed random projection; slow enough to be interrupted."""
    name, revision, dim = "slow", "{revision}", {dim}

    def __init__(self):
        print("a teacher that talks")
        self.projection = np.random.default_rng(0).normal(size=(30, self.dim))

    def encode_images(self, images):
        time.sleep({delay})
        return np.stack([np.asarray(i.resize((3, 3)), float).ravel() / 255 for i in images]) @ self.projection[:27]

    def encode_texts(self, texts):
        time.sleep({delay})
        counts = [[t.count(chr(97 + k)) for k in range(26)] + [len(t), 1, 1, 1] for t in texts]
        return np.array(counts, float) @ self.projection
'''


def run(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """The command with its output; never fails by itself."""
    command = [sys.executable, "-m", "distilvl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)  # type: ignore[call-overload, no-any-return]


def write_pictures(folder: Path, count: int = 48) -> Path:
    """Coloured boxes with two captions each; two thirds train, a sixth each val and test."""
    folder.mkdir()
    lines = []
    for k in range(count):
        image = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(image).rectangle((k % 20, k % 13, k % 20 + 10, k % 13 + 10), fill=COLOURS[k % 8])
        image.save(folder / f"{k:02d}.jpg", quality=95)
        split = "train" if k < count * 2 // 3 else "val" if k < count * 5 // 6 else "test"
        captions = [f"a {COLOURS[k % 8]} box number {k}", f"box {k}, {COLOURS[k % 8]}"]
        lines.append(json.dumps({"image": f"{k:02d}.jpg", "captions": captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_teacher(path: Path, *, dim: int = 12, revision: str = "1", delay: float = 0.0) -> str:
    path.write_text(TEACHER.format(dim=dim, revision=revision, delay=delay), encoding="utf-8")
    return f"{path}:Slow"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kill_when(process: subprocess.Popen[bytes], condition: object) -> None:
    """Send SIGKILL as soon as `condition()` holds; fails when the process ends before."""
    deadline = time.monotonic() + 200
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_main_job_with_training_killed_in_mid_epoch(pictures: Path, student_yaml: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.py")
    store = tmp_path / "features"
    first = run("features", "--teacher", teacher, "--data", pictures, "--out", store, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) | {"store": ""} == {
        "store": "", "teacher": "slow", "dim": 12, "asked_images": 48, "asked_texts": 96, "skipped_images": [],
        "left_out": {"total": 0, "reasons": {}},
    }  # fmt: skip
    again = json.loads(run("features", "--teacher", teacher, "--data", pictures, "--out", store, "--json").stdout)
    assert (again["asked_images"], again["asked_texts"]) == (0, 0)

    def command(out: Path) -> list[str]:
        overrides = ["training.batch_size=8", "training.epochs=60", "training.precision=fp32",
                     "training.checkpoint_every=3", "training.log_every=1"]  # fmt: skip
        base = ["train", "--features", store, "--data", pictures, "--student", student_yaml, "--out", out]
        return [*map(str, base), *(word for item in overrides for word in ("--set", item))]

    whole = run(*command(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert "val RSUM" in whole.stdout
    process = subprocess.Popen(
        [sys.executable, "-m", "distilvl", *command(tmp_path / "parts")], stderr=subprocess.DEVNULL
    )
    metrics = tmp_path / "parts" / "metrics.jsonl"
    kill_when(process, lambda: metrics.is_file() and len(metrics.read_bytes().splitlines()) > 15)
    assert not (tmp_path / "parts" / "student").exists()
    resumed = run(*command(tmp_path / "parts"))
    assert resumed.returncode == 0, resumed.stderr
    for path, data in tree(tmp_path / "whole" / "student").items():
        if path != "README.md":  # the card names the run's folder
            assert tree(tmp_path / "parts" / "student")[path] == data, path

    scored = run("eval", tmp_path / "parts", "--data", pictures, "--split", "test", "--json")
    result = json.loads(scored.stdout)
    assert set(result["image_to_text"]) == set(result["text_to_image"]) == {"r1", "r5", "r10"}
    assert result["retention"] == pytest.approx(result["rsum"] / result["teacher"]["rsum"])
    table = run("eval", tmp_path / "parts", "--data", pictures).stdout
    assert "RSUM" in table
    assert "retention" in table


@pytest.mark.slow
def test_features_killed_and_continued_end_with_the_same_bytes(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "many", 1500)
    quick = write_teacher(tmp_path / "teacher.py")
    assert run("features", "--teacher", quick, "--data", pictures, "--out", tmp_path / "whole").returncode == 0
    write_teacher(tmp_path / "teacher.py", delay=0.3)
    command = ["features", "--teacher", quick, "--data", str(pictures), "--out", str(tmp_path / "parts")]
    process = subprocess.Popen([sys.executable, "-m", "distilvl", *command], stderr=subprocess.DEVNULL)
    kill_when(process, lambda: len(list((tmp_path / "parts").glob("image*.npy"))) == 2)
    assert run(*command).returncode == 0
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def _fails(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Exit code 2 and, as the last line of stderr, one error that says all of `expected`."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr
    for text in expected:
        assert text in last, last


@pytest.mark.slow
def test_bad_data_is_named_and_nothing_is_left_behind(pictures: Path, tmp_path: Path) -> None:
    teacher, store = write_teacher(tmp_path / "teacher.py"), tmp_path / "store"
    captions = pictures / "captions.jsonl"
    original = captions.read_text(encoding="utf-8")

    def features(*extra: str) -> subprocess.CompletedProcess[str]:
        return run("features", "--teacher", teacher, "--data", pictures, "--out", store, *extra)

    (pictures / "03.jpg").rename(tmp_path / "03.jpg")
    _fails(features(), "03.jpg", "--skip-bad")
    (pictures / "03.jpg").write_bytes((tmp_path / "03.jpg").read_bytes()[:300])
    _fails(features(), "03.jpg", "--skip-bad")
    skipped = features("--skip-bad", "--json")
    assert skipped.returncode == 0, skipped.stderr
    assert [Path(name).name for name in json.loads(skipped.stdout)["skipped_images"]] == ["03.jpg"]
    (tmp_path / "03.jpg").replace(pictures / "03.jpg")

    Image.new("RGB", (8, 8)).save(pictures / "lonely.jpg")
    captions.write_text(original + '{"image": "lonely.jpg", "captions": [], "split": "train"}\n', encoding="utf-8")
    _fails(features(), "lonely.jpg", "caption")
    captions.write_text(
        original.replace('"image": "00.jpg"', '"image": "00.jpg", "image_id": "x"').replace(
            '"image": "01.jpg"', '"image": "01.jpg", "image_id": "x"'
        ),
        encoding="utf-8",
    )
    _fails(features(), "'x'")
    captions.write_text(original, encoding="utf-8")
    _fails(features("--split", "dev"), "'dev'", "train (32)")


@pytest.mark.slow
def test_wrong_stores_students_and_keys_are_named(pictures: Path, student_yaml: Path, tmp_path: Path) -> None:
    teacher, store = write_teacher(tmp_path / "teacher.py"), tmp_path / "store"
    base = ["--data", str(pictures)]
    assert run("features", "--teacher", teacher, *base, "--out", store).returncode == 0
    before = tree(store)
    write_teacher(tmp_path / "teacher.py", dim=16)
    _fails(run("features", "--teacher", teacher, *base, "--out", store), "12", "16")
    write_teacher(tmp_path / "teacher.py", revision="2")
    _fails(run("features", "--teacher", teacher, *base, "--out", store), "revision", str(store))
    assert tree(store) == before

    train = ["train", "--features", str(store), *base, "--out", str(tmp_path / "run")]
    _fails(run(*train, "--set", "balancer.tua=1"), "balancer.tua", "balancer.tau")
    _fails(run(*train, "--student", tmp_path), str(tmp_path), "not a student folder")
    _fails(run(*train, "--student", "tinny"), "'tinny'", "tiny")
    _fails(run("train", "--features", tmp_path, *base, "--student", student_yaml, "--out", tmp_path / "r"), "store")
    _fails(run("eval", tmp_path, *base), "not a student folder")
    assert not (tmp_path / "run" / "student").exists()


@pytest.mark.slow
def test_a_full_disk_keeps_finished_shards_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The kernel refuses files over 10 kB, as a full disk refuses a write: the shard of 40 rows of width 512."""
    pictures = write_pictures(tmp_path / "pictures")
    teacher = write_teacher(tmp_path / "teacher.py", dim=512)
    command = ["features", "--teacher", teacher, "--data", str(pictures), "--out", str(tmp_path / "store")]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    _fails(run(*command, preexec_fn=limit), str(tmp_path / "store"), "run the same command again")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["manifest.json"]
    assert run(*command).returncode == 0


def test_help_of_every_command_has_an_example() -> None:
    from typer.testing import CliRunner

    from distilvl.cli import app

    for command in ("demo", "features", "train", "eval", "reproduce"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert f"Example: distilvl {command}" in " ".join(result.output.split())


def test_the_help_waits_for_none_of_the_libraries_that_commands_need() -> None:
    names = ["torch", "transformers", "numpy", "PIL", "pydantic", "yaml", "distilvl.search"]
    code = f"import sys, distilvl, distilvl.cli; print(*[name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_help_tells_the_limit_on_pixels() -> None:
    from typer.testing import CliRunner

    from distilvl.cli import app
    from distilvl.pictures.limits import DEFAULT_MAX_PIXELS, MAX_PIXELS_VARIABLE

    told = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output.split())
    assert f"${MAX_PIXELS_VARIABLE}, or {DEFAULT_MAX_PIXELS:,}." in told
