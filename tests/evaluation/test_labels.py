from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.zero_shot import read_labels


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    write(tmp_path, "sea_lion/b.JPG", "sea_lion/a.png", "cat/a.jpg", "cat/notes.txt", ".cache/x.jpg", "readme.jpg")
    found = read_labels(tmp_path)
    assert [(record.image_id, record.captions) for record in found] == [
        ("cat/a.jpg", ("cat",)),
        ("sea_lion/a.png", ("sea lion",)),
        ("sea_lion/b.JPG", ("sea lion",)),
    ]


def test_a_csv(tmp_path: Path) -> None:
    write(tmp_path, "x/1.jpg", "2.jpg")
    (tmp_path / "labels.csv").write_text('class,image\n"dog, small",x/1.jpg\ncat,2.jpg\n', encoding="utf-8")
    found = read_labels(tmp_path / "labels.csv")
    assert [(record.image_id, record.captions) for record in found] == [
        ("x/1.jpg", ("dog, small",)),
        ("2.jpg", ("cat",)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.jpg,cat\n", "has the columns image .text., label .text., not 'class'"),
        ("image,class\n1.jpg,\n", "line 2 has no class"),
        ("image,class\n1.jpg\n", "line 2 has not the 2 columns"),
        ("image,class\n../1.jpg,cat\n", "leaves the image folder"),
        ("image,class\n1.jpg,cat\n1.jpg,dog\n", "duplicate image_id '1.jpg'"),
        ("image,class\n", "holds no labelled images"),
        ("", "has the columns none"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "1.jpg")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DistilvlError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_missing_files_and_other_things(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg")
    (tmp_path / "labels.csv").write_text("image,class\n1.jpg,cat\n2.jpg,dog\n", encoding="utf-8")
    with pytest.raises(BadImageError, match=r"2\.jpg is missing"):
        read_labels(tmp_path / "labels.csv")
    assert len(read_labels(tmp_path / "labels.csv", skip_bad=True)) == 1
    with pytest.raises(DistilvlError, match="is no list of labelled images"):
        read_labels(tmp_path / "1.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilvlError, match="holds no labelled images"):
        read_labels(tmp_path / "empty")
