"""What the report measures: every student beside its own teacher, as `eval` measures it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import distilvl.reports.gallery as module
from distilvl.evaluation.encode import teacher_features
from distilvl.evaluation.evaluate import evaluate
from distilvl.reports.html import render_html
from distilvl.reports.report import as_dict, build_report
from distilvl.reports.tables import CROSS_NOTE, render_markdown


def _copy(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    copy = tmp_path / "other"
    shutil.copytree(trained[0], copy)
    return copy


def test_students_of_different_teachers_are_held_against_their_own(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _copy(trained, tmp_path)

    def taught(encoded: Any, run: Path) -> Any:
        """The other run's teacher gives noise."""
        found = teacher_features(encoded, run)
        if run.name != "other" or found is None:
            return found
        random = np.random.default_rng(0)
        return tuple(random.normal(size=(len(rows), 5)).astype(np.float32) for rows in found)

    monkeypatch.setattr(module, "teacher_features", taught)
    report = build_report([trained[0], other], timed=False, examples=2)
    rows = {row.name: row for row in report.measured}
    assert list(rows) == ["teacher of distilled", "teacher of other", "distilled", "other"]
    for name in ("distilled", "other"):
        teacher = rows[f"teacher of {name}"].rsum
        assert rows[name].teacher_rsum == teacher
        assert rows[name].retention == pytest.approx(100 * rows[name].rsum / teacher)
        assert f"the teacher has {teacher:.1f}" in render_html(report)
    assert rows["distilled"].teacher_rsum != rows["other"].teacher_rsum
    agreed = dict(report.agreements)
    assert agreed["distilled"].cosine is not None
    assert agreed["other"].cosine is None, "its teacher has another width"
    assert [space.name for space in report.spaces] == list(rows)
    assert set(report.examples[0].ranks) == {"teacher of distilled", "distilled", "other"}


def test_a_run_whose_teacher_is_gone_has_no_retention(trained: tuple[Path, Path], tmp_path: Path) -> None:
    other = _copy(trained, tmp_path)
    config = yaml.safe_load((other / "config.yaml").read_text(encoding="utf-8"))
    config["inputs"]["features"] = str(tmp_path / "gone")
    (other / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    report = build_report([other, trained[0]], timed=False, examples=2)
    rows = {row.name: row for row in report.measured}
    assert rows["other"].retention is rows["other"].teacher_rsum is None
    assert rows["distilled"].retention is not None
    assert [name for name, _ in report.agreements] == ["distilled"]
    assert set(report.examples[0].ranks) == {"other", "distilled"}


def test_the_agreement_is_that_of_eval(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Also where pictures and captions repeat: of copies, both take the first."""
    data = tmp_path / "data"
    shutil.copytree(trained[0].parent / "pictures", data)
    listed = (data / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    copies = []
    for line in listed[16:22]:
        name = line.split('"')[3]
        shutil.copy(data / name, data / f"copy-{name}")
        copies.append(line.replace(f'"{name}"', f'"copy-{name}"', 1))
    (data / "captions.jsonl").write_text("\n".join([*listed, *copies]) + "\n", encoding="utf-8")
    report = build_report([trained[0]], data=str(data), timed=False, examples=0)
    found = evaluate(trained[0], data, split="val")
    assert found.agreement is not None
    assert dict(report.agreements) == {"distilled": found.agreement}
    assert report.gallery is not None
    assert len(report.gallery.dataset) == 22


def test_the_note_speaks_of_the_images_of_the_report(trained: tuple[Path, Path]) -> None:
    report = build_report([trained[0]], items=9, timed=False, examples=0)
    assert report.gallery is not None
    assert report.gallery.note == (
        "only 9 of the 16 images of val are scored; a score on so few is coarse. Without --items, all 16 are."
    )


def test_the_cross_scores_are_those_of_eval_and_of_students_in_a_teachers_space(trained: tuple[Path, Path]) -> None:
    report = build_report(list(trained), timed=False, examples=0)
    found = evaluate(trained[0], trained[0].parent / "pictures", split="val")
    assert found.cross is not None
    assert found.teacher is not None
    (row,) = report.crosses
    assert row.name == "distilled"
    assert (row.student, row.teacher) == pytest.approx((found.student.rsum, found.teacher.rsum))
    expected = found.cross.student_images_teacher_texts.rsum, found.cross.teacher_images_student_texts.rsum
    assert (row.student_images_teacher_texts, row.teacher_images_student_texts) == pytest.approx(expected)
    assert as_dict(report)["cross_scores"] == [asdict(row)]
    page, markdown = render_html(report), render_markdown(report)
    for text in (page, markdown):
        assert text.count("Cross scores, RSUM") >= 1
        assert f"{expected[0]:.1f}" in text
    assert CROSS_NOTE.replace("'", "&#39;") in page
    assert CROSS_NOTE in markdown


def test_without_its_data_a_report_has_the_cross_scores_of_the_run(trained: tuple[Path, Path], tmp_path: Path) -> None:
    other = _copy(trained, tmp_path)
    shutil.rmtree(other / "student")
    report = build_report([other], timed=False, examples=0)
    result = json.loads((other / "result.json").read_text())
    assert report.gallery is None
    assert [row.teacher_images_student_texts for row in report.crosses] == [
        result["teacher_images_student_texts"]["rsum"]
    ]
    del result["teacher_images_student_texts"]  # a run of an earlier version
    (other / "result.json").write_text(json.dumps(result))
    assert "Cross scores" not in render_html(build_report([other], timed=False, examples=0))
