"""Tables 1 and 3 and Figure 2 from one real, small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.experiments.cells import Base, load_table, plan
from distilvl.experiments.grid import run_job
from distilvl.experiments.outputs import Finished, write_outputs
from distilvl.experiments.reproduce import collect
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key

SIZE = 24
TEACHER = """
import numpy as np

class Mean:
    name, revision, dim, num_parameters = "mean", "1", 12, 5

    def encode_images(self, images):
        return np.stack([np.asarray(image.resize((2, 2)), float).ravel() + 1 for image in images])

    def encode_texts(self, texts):
        return np.array([[text.count(chr(97 + k)) + 1 for k in range(12)] for text in texts], float)
"""


@pytest.fixture
def base(tmp_path: Path, student_yaml: Path) -> Base:
    """Grey pictures in a folder called flickr30k, with made-up teacher features."""
    folder, rng = tmp_path / "flickr30k", np.random.default_rng(0)
    folder.mkdir()
    lines = ["image,caption,split"]
    for k in range(SIZE):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
        lines.append(f"{k:02d}.png,picture number {k},{('train', 'val', 'test')[k // 8]}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    records, features = list(load_dataset(folder)), rng.normal(size=(SIZE, 12))
    store = FeatureStore.create(tmp_path / "store", Manifest(teacher="made-up", revision="1", dim=12))
    store.add("image", [image_key(record.image.read()) for record in records], features)
    store.add("text", [text_key(record.captions[0]) for record in records], features)
    overrides = ("training.batch_size=8", "training.epochs=1", "training.precision=fp32", "objective.cd.queue=8")
    return Base("default", str(folder), str(tmp_path / "store"), str(student_yaml), overrides, "test")


def _finished(name: str, base: Base, out: Path, teacher: str | None = None) -> Finished:
    table = load_table(name)
    jobs = plan(table, base, (0,), out)
    for job in jobs:
        assert run_job(job, "cpu").failure is None
    return Finished(collect(table, jobs, base, "the command"), tuple(jobs), base, out, teacher)


def test_table1_marks_our_row_on_another_test_set(base: Base, tmp_path: Path) -> None:
    files, text = write_outputs(_finished("table1", base, tmp_path))
    assert {path.name for path in files} == {"table1.md", "table1.csv", "table1.json"}
    assert "DIME" in text
    assert "not comparable" in text  # the folder is called flickr30k, but eight images are not its test set
    assert "8 images" in text


def test_table3_measures_the_student_and_a_teacher_that_can_be_asked(base: Base, tmp_path: Path) -> None:
    spec = tmp_path / "teacher.py"
    spec.write_text(TEACHER, encoding="utf-8")
    _, text = write_outputs(_finished("table3", base, tmp_path, f"{spec}:Mean"))
    assert "FLOPs" in text
    assert "the command" in text
    found = json.loads((tmp_path / "table3.json").read_text(encoding="utf-8"))
    assert found["runs"]["cells"][0]["name"] == "dsmd"
    stored_only = write_outputs(_finished("table3", base, tmp_path))[1]
    assert "not measurable" in stored_only
    assert "not measurable" not in text


def test_figure2_is_drawn_from_stored_teacher_and_trained_student(base: Base, tmp_path: Path) -> None:
    files, text = write_outputs(_finished("figure2", base, tmp_path))
    assert {path.name for path in files} == {"figure2.md", "figure2.json", "figure2.png", "figure2.svg"}
    numbers = json.loads((tmp_path / "figure2.json").read_text(encoding="utf-8"))
    assert numbers["teacher"]["matching_cosine"] == pytest.approx(1, abs=1e-3)  # both sides are the same vectors
    assert numbers["student"]["images"] == 8
    assert f"{numbers['student']['modality_gap']:.3f}" in text
    with Image.open(tmp_path / "figure2.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_outputs_of_unfinished_runs_say_so(base: Base, tmp_path: Path) -> None:
    table = load_table("figure2")
    jobs = plan(table, base, (0,), tmp_path)
    unfinished = Finished(collect(table, jobs, base, "c"), tuple(jobs), base, tmp_path, None)
    with pytest.raises(DistilvlError, match="no run of this table is finished"):
        write_outputs(unfinished)
