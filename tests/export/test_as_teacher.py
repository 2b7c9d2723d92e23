"""An exported student where any other model may stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import distilvl
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.export import Export
from distilvl.extraction import extract_features
from distilvl.models import load_encoder, load_teacher
from distilvl.runtime import Runtime


def test_it_scores_as_the_student_does(run_folder: Path, exported: Export, scenes: PairDataset) -> None:
    fp32 = distilvl.evaluate(f"{exported.folder}?precision=fp32", scenes, split="val").student
    assert fp32.rsum == pytest.approx(distilvl.evaluate(run_folder / "student", scenes, split="val").student.rsum)
    assert distilvl.evaluate(exported.folder, scenes, split="val").student.rsum > 0


def test_it_is_a_teacher_and_an_encoder(exported: Export) -> None:
    teacher = load_teacher(f"{exported.folder}?precision=fp16")
    assert isinstance(teacher, Runtime)
    assert teacher.precision == "fp16"
    rows = load_encoder(f"{exported.folder}?precision=fp16").encode_texts(["a red circle"])
    np.testing.assert_allclose(rows, teacher.encode_texts(["a red circle"]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"), [("?device=cuda", "has no option 'device'"), ("?precision=fp8", "no dtype 'fp8'")]
)
def test_other_options_are_refused(exported: Export, options: str, message: str) -> None:
    for load in (load_teacher, load_encoder):
        with pytest.raises(DistilvlError, match=message):
            load(f"{exported.folder}{options}")


def test_searching_with_it_loads_no_torch(exported: Export) -> None:
    code = (
        "import sys; from distilvl.models import load_encoder;"
        "load_encoder(sys.argv[1]).encode_texts(['a red circle']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(exported.folder)], check=False).returncode == 0


def test_features_are_extracted_from_its_folder(exported: Export, scenes: PairDataset, tmp_path: Path) -> None:
    few = PairDataset("few", tuple(scenes)[:3])
    store = extract_features(str(exported.folder), few, tmp_path / "store").store
    assert store.manifest.teacher == exported.student
