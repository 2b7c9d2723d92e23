from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.runtime import Runtime, is_export, read_manifest

Change = Callable[..., None]
FILES = ["image.fp32.onnx", "text.fp32.onnx", "tokenizer.json"]


def test_what_is_written_is_read_again(folder: Path) -> None:
    import json

    manifest = read_manifest(folder)
    assert manifest.as_dict() == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest.smallest() == "fp32"
    assert is_export(folder)


def test_an_export_of_an_earlier_version_names_no_widths(folder: Path) -> None:
    import json

    path = folder / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["widths"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert Runtime.load(folder).matryoshka_dims == ()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DistilvlError, match=f"{name}: No such file"):
        Runtime.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DistilvlError, match=rf"{name} is damaged.*SHA-256"):
        Runtime.load(folder)


def test_a_cut_file_is_found(folder: Path) -> None:
    path = folder / "text.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DistilvlError, match=r"text\.fp32\.onnx has .* bytes instead of"):
        Runtime.load(folder)


@pytest.mark.parametrize(
    "name", ["../evil.onnx", "/etc/passwd", "..", "", "sub/x.onnx", "..\\x", "C:x", "a\0b", 3, None]
)
def test_names_that_lead_elsewhere_are_refused(folder: Path, change: Change, name: object) -> None:
    change(name, "precisions", "fp32", "image")
    with pytest.raises(DistilvlError, match=r"manifest\.json is damaged: .* is not the name of a file in the folder"):
        Runtime.load(folder)


def test_a_file_without_a_hash_is_refused(folder: Path, change: Change) -> None:
    shutil.copy(folder / "image.fp32.onnx", folder / "other.onnx")
    change("other.onnx", "precisions", "fp32", "image")
    with pytest.raises(DistilvlError, match=r"other\.onnx is not among its files"):
        Runtime.load(folder)


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("wide", ("width",)),
        (0, ("width",)),
        (True, ("width",)),
        (None, ("image",)),
        ([4], ("image", "size")),
        ([{"step": "sharpen"}], ("image", "steps")),
        ([{"step": "resize", "height": 4, "width": 6, "resample": "magic"}], ("image", "steps")),
        ([{"step": "resize", "height": 0, "width": 6, "resample": "box"}], ("image", "steps")),
        (["resize"], ("image", "steps")),
        (-1, ("text", "pad_id")),
        ({}, ("precisions",)),
        ([], ("files",)),
        (5, ("name",)),
        ("a", ("files", "tokenizer.json")),
    ],
)
def test_damaged_fields_are_refused(folder: Path, change: Change, value: object, keys: tuple[str, ...]) -> None:
    change(value, *keys)
    with pytest.raises(DistilvlError, match=r"manifest\.json is damaged"):
        read_manifest(folder)


def test_other_versions_and_other_folders(folder: Path, change: Change, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="cannot read"):
        read_manifest(tmp_path)
    assert not is_export(tmp_path)
    change(2, "version")
    with pytest.raises(DistilvlError, match="version 2"):
        read_manifest(folder)
    change("store", "format")
    with pytest.raises(DistilvlError, match="not an exported student"):
        read_manifest(folder)
    for text in ("{", "[]", "\xff"):
        (folder / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(DistilvlError, match=r"not (JSON|a JSON object)"):
            read_manifest(folder)
        assert not is_export(folder)


def test_a_graph_that_is_none_is_named(folder: Path, change: Change) -> None:
    from distilvl.io.hashes import file_hash

    path = folder / "text.fp32.onnx"
    path.write_bytes(b"not a graph")
    change({"sha256": file_hash(path), "size": 11}, "files", "text.fp32.onnx")
    with pytest.raises(DistilvlError, match=r"onnxruntime cannot read .*text\.fp32\.onnx"):
        Runtime.load(folder).encode_texts(["dog"])
