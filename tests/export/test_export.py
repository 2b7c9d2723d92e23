from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tests.export.conftest import Build
from tests.students.small_vocabularies import CAPTIONS, tower

from distilvl.data import PairDataset
from distilvl.data.left_out import NOT_DECODED, LeftOut
from distilvl.errors import BadImageError, DistilvlError
from distilvl.export import Export, Settings, export_student
from distilvl.runtime import Runtime, read_manifest
from distilvl.students import DualEncoder, load_student, save_student
from distilvl.students.folder import save_dims
from distilvl.teachers.base import Teacher

TEXTS = ["a red circle", "a small green star above a blue square", "", "zz! " * 40, "Naïve café — 東京"]
ATOL = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (17, 9), (32, 32), (100, 20)]
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch", [1, 4])
def test_features_are_the_students(exported: Export, run_folder: Path, precision: str, batch: int) -> None:
    student = load_student(run_folder / "student", device="cpu")
    runtime = Runtime.load(exported.folder, precision=precision)
    images, texts = pictures()[:batch], TEXTS[:batch]
    for given, expected in (
        (runtime.encode_images(images), student.encode(images)),
        (runtime.encode_texts(texts), student.encode(texts)),
    ):
        assert given.dtype == np.float32
        assert given.shape == (batch, 16)
        np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(given, expected, atol=ATOL[precision])


def test_any_length_and_number_of_texts(exported: Export, run_folder: Path) -> None:
    student = load_student(run_folder / "student", device="cpu")
    runtime = Runtime.load(exported.folder, precision="fp32")
    texts = [" ".join(["star"] * (k % 40)) for k in range(150)]
    np.testing.assert_allclose(runtime.encode_texts(texts), student.encode(texts), atol=1e-5)


def test_int8_keeps_what_it_is_told_to_and_lowers_the_rest(exported: Export) -> None:
    graph = onnx.load(exported.folder / "text.int8.onnx")
    floats = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    weights = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) > 1 and np.prod(tensor.dims) > 200}
    assert [name for name in weights & floats if "scale" not in name] == [
        name for name in weights if name.endswith("position_embeddings.weight")
    ]
    assert read_manifest(exported.folder).precisions["int8"].kept == ("text.tower.embeddings.position_embeddings",)


def test_rows_and_manifest_agree(exported: Export, run_folder: Path) -> None:
    assert [row.name for row in exported.rows] == ["torch", "fp32", "fp16", "int8"]
    torch, fp32, fp16, int8 = exported.rows
    assert torch.drop is None
    assert fp32.drop == pytest.approx(0, abs=1e-6)
    assert int8.drop == pytest.approx(torch.rsum - int8.rsum)
    assert fp32.size > fp16.size
    assert fp32.size > int8.size
    assert all(row.image_ms > 0 and row.text_ms > 0 for row in exported.rows)
    manifest = read_manifest(exported.folder)
    assert manifest.name == "small"
    assert manifest.max_length == 24
    assert json.loads(json.dumps(exported.as_dict()))["rows"] == manifest.scores["rows"]
    assert exported.images == 24
    files = {path.name for path in exported.folder.iterdir()}
    assert files == {*manifest.files, "manifest.json"}


def test_an_export_is_a_teacher_and_its_revision_tells_precisions_apart(exported: Export) -> None:
    one, other = (Runtime.load(exported.folder, precision=name) for name in ("fp32", "int8"))
    assert isinstance(one, Teacher)
    assert one.revision != other.revision
    assert one.dim == 16


def test_too_large_a_drop_is_refused_and_leaves_nothing(run_folder: Path, scenes: PairDataset, tmp_path: Path) -> None:
    settings = Settings(precisions=["int8"], max_drop=-601)
    with pytest.raises(DistilvlError, match=r"int8 with \d+ layers .* loses .* RSUM.*(text|image)\..*--keep image"):
        export_student(run_folder, tmp_path / "out", scenes, settings)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_suffer_stay_in_fp32_until_little_is_lost(
    run_folder: Path, scenes: PairDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_student(run_folder / "student", device="cpu")
    head = DualEncoder(model).head("text")
    norm = model[0].sub_modules["text"][0].model.encoder.layer[-1].output.LayerNorm
    with torch.no_grad():  # one number a thousand times as large as the others: one scale for all of them loses these
        norm.weight[0] *= 1e3
        norm.bias[0] *= 1e3
        head.weight[:, 0] /= 1e3
    save_student(model, tmp_path / "student")
    expected = model.encode(TEXTS)

    def nearness(encoders: Mapping[str, Any], *_: object, **__: object) -> tuple[dict[str, float], LeftOut]:
        """In the place of RSUM, which of a random student is noise: 600 where the texts' embeddings are the same."""
        return {name: 600 * float((one.encode_texts(TEXTS) * expected).sum(axis=1).mean())
                for name, one in encoders.items()}, LeftOut()  # fmt: skip

    monkeypatch.setattr("distilvl.export.export.rsums", nearness)
    lossy = export_student(tmp_path / "student", tmp_path / "lossy", scenes, Settings(max_drop=600)).rows[-1]
    exported = export_student(tmp_path / "student", tmp_path / "out", scenes, Settings(max_drop=6))
    kept = exported.rows[-1]
    assert (lossy.name, kept.name) == ("int8", "int8")
    assert lossy.drop is not None
    assert lossy.drop > 6
    assert kept.drop is not None
    assert kept.drop < 6
    manifest = read_manifest(exported.folder)
    assert manifest.precisions["int8"].kept == ("text.head",)
    given = Runtime.load(exported.folder, precision="int8").encode_texts(TEXTS)
    assert 600 * (1 - (given * expected).sum(axis=1).mean()) < 6


def test_an_earlier_export_is_replaced_and_other_folders_are_not(
    run_folder: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(DistilvlError, match="not an exported student"):
        export_student(run_folder, out, scenes, Settings(precisions=["fp32"]))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "mine.txt").read_text(encoding="utf-8") == "keep me"


@dataclass(frozen=True)
class Damaged:
    """An image whose file is cut short."""

    name: str = "cut.png"

    def read(self) -> bytes:
        return b"\x89PNG"


def test_a_matryoshka_student_with_bad_pictures(run_folder: Path, scenes: PairDataset, tmp_path: Path) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    save_dims([8, 4], run / "student")
    bad = {
        split: replace(scenes.split(split)[0], image=Damaged(), image_id=f"{split} cut") for split in ("train", "val")
    }
    data = PairDataset("scenes", (bad["train"], bad["val"], *scenes))
    with pytest.raises(BadImageError, match=r"cut\.png"):
        export_student(run, tmp_path / "out", data, Settings(precisions=["fp32"]))
    export = export_student(run, tmp_path / "out", data, Settings(precisions=["fp32"], skip_bad=True, max_drop=1))
    assert Runtime.load(export.folder).matryoshka_dims == (8, 4)
    assert export.left_out.names == {NOT_DECODED: ["cut.png"]}
    assert Runtime.load(export.folder).manifest.scores["left_out"] == export.left_out.as_dict()
    assert not export.run_left_out


def test_a_student_of_damaged_widths_is_refused(run_folder: Path, scenes: PairDataset, tmp_path: Path) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "student" / "matryoshka.json").write_text('{"widths": ["8"]}', encoding="utf-8")
    with pytest.raises(DistilvlError, match=r"matryoshka\.json is damaged: it holds no list of widths"):
        export_student(run, tmp_path / "out", scenes, Settings(precisions=["fp32"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(precisions=["int4"]), "dtype 'int4' is unknown.*fp32, fp16, int8"),
        (Settings(precisions=[]), "no dtype"),
        (Settings(keep=["image.nose"]), "no layer is named 'image.nose'.*image.head"),
        (Settings(split="dev"), "split 'dev'"),
    ],
)
def test_wrong_settings_are_named(
    settings: Settings, message: str, run_folder: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    with pytest.raises(DistilvlError, match=message):
        export_student(run_folder, tmp_path / "out", scenes, settings)
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_student_as_it_was(build: object, scenes: PairDataset) -> None:
    from distilvl.export.graphs import export_graphs

    student = build()  # type: ignore[operator]
    before = [student[0].sub_modules[name][0].model.config._attn_implementation for name in ("text", "image")]
    export_graphs(DualEncoder(student))
    after = [student[0].sub_modules[name][0].model.config._attn_implementation for name in ("text", "image")]
    assert before == after


@pytest.mark.slow
def test_a_trimmed_vocabulary(build: Build, scenes: PairDataset, tmp_path: Path) -> None:
    for part in tower("RoBERTa"):
        part.save_pretrained(tmp_path / "roberta")
    text = {"model": str(tmp_path / "roberta"), "vocabulary": "trim", "max_length": 24, "pooling": "mean"}
    student = build(text=text)
    entries = len(student[0].sub_modules["text"][0].tokenizer)
    save_student(student, tmp_path / "student")
    found = export_student(tmp_path / "student", tmp_path / "exported", scenes, Settings(precisions=("fp32",)))
    assert len(json.loads((found.folder / "tokenizer.json").read_text())["model"]["vocab"]) == entries < 700
    texts = [*scenes.captions[:5], *CAPTIONS[:5], *TEXTS]
    given = Runtime.load(found.folder, precision="fp32").encode_texts(texts)
    np.testing.assert_allclose(given, student.encode(texts), atol=1e-5)


def test_photographs_without_captions_are_told_the_overlap(
    run_folder: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k, record in enumerate(scenes.split("val")):
        (photos / f"{k:02d}.png").write_bytes(record.image.read())
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "config.yaml").write_text(f"fit: {{}}\ninputs: {{data: 'unpaired:{photos}'}}\n", encoding="utf-8")
    exported = export_student(run, tmp_path / "out", settings=Settings(max_drop=-1))
    again = export_student(run, tmp_path / "again", photos, Settings(precisions=["int8"]))
    rows = {row.name: row for row in exported.rows}
    assert list(rows) == ["torch", "fp32", "int8"]
    assert {row.rsum for row in exported.rows} == {None}
    assert rows["torch"].overlap == rows["fp32"].overlap == 100
    assert rows["int8"].overlap is not None
    assert 30 < rows["int8"].overlap < 100
    assert again.rows[-1].overlap == rows["int8"].overlap
    assert exported.images == 24
    assert "no captions" in str(exported.note)
    assert read_manifest(exported.folder).scores["rows"][2]["overlap"] == rows["int8"].overlap


def test_without_a_run_the_data_are_named(run_folder: Path, tmp_path: Path) -> None:
    student = shutil.copytree(run_folder / "student", tmp_path / "alone")
    with pytest.raises(DistilvlError, match=r"no data is named, and .*alone lies in no run's folder.*--data"):
        export_student(student, tmp_path / "out")
