"""A store, runs, an export and an index that version 0.1.0 made before its packages were rearranged: they still work.

That version wrote `tests/data/version-0.1.0` in a folder of that name at the root of the disk. `run` is whole,
`stopped` is the same command killed in its fifth of six steps, `answers.json` is what that version said of all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilvl.data import load_dataset
from distilvl.features import FeatureStore
from distilvl.io.hashes import image_key, text_key
from distilvl.recipes import load_config

OLD = Path(__file__).with_name("data") / "version-0.1.0"
ANSWERS = json.loads((OLD / "answers.json").read_text(encoding="utf-8"))
SETTINGS = ["training.epochs=2", "training.batch_size=8", "training.precision=fp32", "training.checkpoint_every=2",
            "objective.cd.queue=20", "training.log_every=1"]  # fmt: skip


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, as the current folder."""
    folder = shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(folder)
    return folder


def distilvl(*words: str) -> str:
    """What the command prints on stdout."""
    command = [sys.executable, "-m", "distilvl", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(run: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["losses"] for line in lines if "losses" in line]


def test_store(old: Path) -> None:
    store, data = FeatureStore.open("store"), load_dataset("photos")
    report = store.verify()
    assert (report.images, report.texts) == (32, len({caption for record in data for caption in record.captions}))
    assert store.images([image_key(record.image.read()) for record in data]).shape == (32, 12)
    assert store.texts([text_key(caption) for caption in data.captions]).shape == (64, 12)
    assert distilvl("features", "--teacher", "colour_teacher.py:ColourTeacher", "--data", "photos", "--out", "store")
    assert len(list(Path("store").glob("*.npy"))) == 2  # nothing was lacking


def test_whole_run_is_scored(old: Path) -> None:
    found = json.loads(distilvl("eval", "run", "--data", "photos", "--split", "val", "--json"))
    expected = ANSWERS["eval"]
    assert found["rsum"] == pytest.approx(expected["rsum"])
    assert found["teacher"]["rsum"] == pytest.approx(expected["teacher"]["rsum"])
    assert found["agreement"]["cosine"] == pytest.approx(expected["agreement"]["cosine"], abs=1e-4)
    assert set(expected) <= set(found)


@pytest.mark.slow
def test_stopped_run_continues(old: Path) -> None:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    distilvl("train", "--features", "store", "--data", "photos", "--student", "student.yaml", "--out", "stopped",
             "--device", "cpu", *words)  # fmt: skip
    continued, whole = losses("stopped"), losses("run")
    assert len(continued) == len(whole) == 6
    for mine, theirs in zip(continued, whole, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    page = distilvl("report", "stopped", "--no-timing")
    assert "written" in page


def test_student_and_export_encode_as_they_did(old: Path) -> None:
    from distilvl.runtime import Runtime
    from distilvl.students import load_student

    texts = ANSWERS["texts"]
    student = load_student("run/student").encode(texts)
    np.testing.assert_allclose(student, ANSWERS["student"], atol=1e-4)
    pytest.importorskip("onnxruntime")
    np.testing.assert_allclose(Runtime.load("exported").encode_texts(texts), ANSWERS["exported"], atol=1e-4)


def test_index_is_searched(old: Path) -> None:
    pytest.importorskip("lancedb")
    from distilvl.search import Index

    # The index remembers where its model was; it is here now.
    about = Path("index/distilvl-index.json")
    about.write_text(about.read_text(encoding="utf-8").replace("/version-0.1.0", old.as_posix()), encoding="utf-8")
    hits = Index.open("index").search(ANSWERS["query"], top=5)
    assert [Path(hit.path).name for hit in hits] == [name for name, _ in ANSWERS["hits"]]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in ANSWERS["hits"]], abs=1e-3)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (OLD / "configs").iterdir()))
def test_saved_config_is_the_recipe_of_today(recipe: str) -> None:
    assert load_config(str(OLD / "configs" / f"{recipe}.yaml")) == load_config(recipe, student="tiny")
