from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.folders import read_sidecars
from distilvl.data.left_out import MISSING, NO_CAPTION
from distilvl.data.listing import split_of
from distilvl.errors import BadImageError, DistilvlError

NAMES = ("a", "b", "c", "sub/d")


def test_a_caption_a_line(folder: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.txt").write_text(f"{name} one\n\n{name} two\n")
    dataset = read_sidecars(folder)
    assert [(record.image_id, record.captions) for record in dataset] == [
        (f"{name}.png", (f"{name} one", f"{name} two")) for name in NAMES
    ]
    assert [record.split for record in dataset] == [split_of(f"{name}.png") for name in NAMES]


def test_folders_named_after_splits(folder: Path) -> None:
    for name, place in zip(NAMES[:3], ("train", "validation", "test/deep"), strict=True):
        (folder / place).mkdir(parents=True)
        (folder / f"{name}.png").rename(folder / place / f"{name}.png")
        (folder / place / f"{name}.txt").write_text("one")
    (folder / "sub").rename(folder / "dev")
    (folder / "dev" / "d.txt").write_text("one")
    splits = {record.image_id: record.split for record in read_sidecars(folder)}
    assert splits == {"dev/d.png": "val", "test/deep/c.png": "test", "train/a.png": "train", "validation/b.png": "val"}


def test_a_class_folder_is_no_caption(folder: Path) -> None:
    with pytest.raises(DistilvlError, match=r"4 images and no captions; names of folders are not captions.*unpaired:"):
        read_sidecars(folder)


def test_one_without_and_one_empty(folder: Path) -> None:
    for name in NAMES[1:]:
        (folder / f"{name}.txt").write_text("one")
    with pytest.raises(DistilvlError, match=r"a\.png has no text file \(1 of 4"):
        read_sidecars(folder)
    (folder / "a.txt").write_text("\n")
    with pytest.raises(DistilvlError, match=r"image 'a\.png' in album has no captions"):
        read_sidecars(folder)


def test_a_link_into_nothing_is_a_bad_image(folder: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.txt").write_text("one")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("gone.png")
    with pytest.raises(BadImageError, match=r"a\.png is missing \(1 of 4"):
        load_dataset(folder)
    dataset = load_dataset(folder, skip_bad=True)
    assert (len(dataset), list(dataset.left_out.items())) == (3, [(str(folder / "a.png"), MISSING)])


def test_with_skip_bad_images_without_a_caption_are_left_out_and_named(folder: Path) -> None:
    for name in NAMES[1:]:
        (folder / f"{name}.txt").write_text("one")
    (folder / "b.txt").write_text(" \n")
    (folder / "c.txt").write_bytes("caf\u00e9".encode("cp1252"))
    dataset = read_sidecars(folder, skip_bad=True)
    assert [record.image_id for record in dataset] == ["sub/d.png"]
    assert dataset.left_out.names == {
        NO_CAPTION: [str(folder / "a.png"), str(folder / "b.png")],
        "a text file that cannot be read": [str(folder / "c.txt")],
    }
    assert dataset.split(dataset[0].split).left_out == dataset.left_out


def test_a_text_belongs_to_the_picture_that_was_passed_over(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.TXT").write_text("one")
    for name in ("raw.CR2", "raw.txt", "alone.txt"):
        (folder / name).write_text("x")
    dataset = read_sidecars(folder)
    assert len(dataset) == 4
    assert dataset.left_out.names == {
        "RAW (.cr2), which is not read": ["raw.CR2"],
        "a text file without an image": ["alone.txt"],
    }


def test_a_folder_of_pictures_that_are_not_read_says_so(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.NEF").write_bytes(b"x")
    with pytest.raises(DistilvlError, match=r"no images, only what is not read: 3 \(RAW \(\.nef\).*0\.NEF, 1\.NEF"):
        load_dataset(tmp_path, skip_bad=True)


def _pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 40, 80)).save(path)
        path.with_suffix(".txt").write_text(f"caption {k}")


def test_an_image_outside_of_the_splits_folders_does_not_undo_them(tmp_path: Path):
    _pictures(tmp_path, "Train/a.png", "train/b.png", "TEST/c.png", "cover.png", "extra/d.png")
    with pytest.raises(DistilvlError, match=r"cover\.png lies in none of the folders .* --skip-bad"):
        read_sidecars(tmp_path)
    dataset = read_sidecars(tmp_path, skip_bad=True)
    assert dataset.splits == {"test": 1, "train": 2}
    assert [Path(name).name for name, _ in dataset.left_out.items()] == ["cover.png", "d.png"]


def test_a_class_that_is_called_train_is_no_split(tmp_path: Path):
    _pictures(tmp_path, "train/a.png", "ship/b.png")
    assert len(read_sidecars(tmp_path)) == 2


def test_a_list_under_another_name_is_named(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(DistilvlError, match=r"There is annotations\.json: if it is the list, give its path"):
        read_sidecars(tmp_path)
