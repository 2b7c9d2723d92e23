from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from distilvl.data import UnpairedDataset, load_dataset, read_unpaired
from distilvl.data.folders import (
    HIDDEN,
    NO_UNICODE,
    NOT_THE_USERS,
    NOWHERE,
    SEEN,
    SPECIAL,
    UNREADABLE_FOLDER,
    image_files,
    read_sidecars,
    scan_folder,
)
from distilvl.data.left_out import MISSING, NO_CAPTION, LeftOut
from distilvl.data.listing import split_of
from distilvl.errors import BadImageError, DistilvlError


def test_images_at_all_depths_sorted_and_nothing_else(folder: Path) -> None:
    for name in ("notes.txt", ".hidden.png", "._a.png", "Z.JPG", "e.webp"):
        (folder / name).write_bytes(b"")
    (folder / "lost+found").mkdir()
    (folder / "lost+found" / "x.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    assert image_files(folder) == ["Z.JPG", "a.png", "b.png", "c.png", "e.webp", "sub/d.png"]


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.png").write_bytes(b"")
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "sub" / "up").symlink_to(folder)
    assert image_files(folder) == ["a.png", "b.png", "c.png", "far/x.png", "sub/d.png"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="no folder"):
        image_files(tmp_path / "nowhere")


def test_what_is_passed_over_is_counted_and_named(folder: Path) -> None:
    for name in ("IMG_1.CR2", "IMG_2.CR2", "clip.MOV", "x.xyz", ".h.png", "._a.png", ".DS_Store", "readme.md"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    (folder / "dead.png").symlink_to("nowhere.png")
    (folder / "dead").symlink_to("nowhere")
    (folder / "round").symlink_to("round")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (folder / os.fsdecode(b"\xe9")).mkdir()
    found = scan_folder(folder)
    assert found.images == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert found.dead == ["dead.png"]
    assert found.left_out.names == {
        "RAW (.cr2), which is not read": ["IMG_1.CR2", "IMG_2.CR2"],
        "video (.mov), which is not read": ["clip.MOV"],
        "no picture by its ending (.xyz)": ["x.xyz"],
        HIDDEN: ["._a.png", ".h.png"],
        SPECIAL: ["pipe.png"],
        NOWHERE: ["dead", "round"],
        SEEN: ["sub/up/"],
        NO_UNICODE: ["caf\\xe9.png", "\\xe9/"],
    }
    left_out = LeftOut()
    assert image_files(folder, left_out=left_out) == found.images
    assert left_out.names[NOWHERE] == ["dead", "round", "dead.png"]


OTHERS = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", ".Trash-1000", ".Trashes", "lost+found"),
    *("@Recycle", ".@__thumb", "#snapshot", ".thumbnails", "__MACOSX", "sub/@EADIR"),
)


def test_folders_of_a_nas_and_waste_bins_are_read_on_demand_only(folder: Path) -> None:
    for name in (*OTHERS, ".git"):
        (folder / name).mkdir()
        (folder / name / "gone.png").write_bytes(b"x")
    left_out = LeftOut()
    assert image_files(folder, left_out=left_out) == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert left_out.counts == {NOT_THE_USERS: len(OTHERS), HIDDEN: 1}
    assert set(left_out.names[NOT_THE_USERS]) == {f"{name}/" for name in OTHERS}
    left_out = LeftOut()
    assert len(image_files(folder, include_hidden=True, left_out=left_out)) == 4 + len(OTHERS) + 1
    assert not left_out


def test_a_folder_that_may_not_be_listed_is_left_out_on_demand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", PermissionError(13, "Permission denied"), monkeypatch)
    left_out = LeftOut()
    assert image_files(folder, skip_bad=True, left_out=left_out) == ["a.png", "b.png", "c.png"]
    assert left_out.names == {UNREADABLE_FOLDER: ["sub/"]}


def test_a_disk_that_fails_is_never_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", OSError(5, "Input/output error"), monkeypatch)
    with pytest.raises(DistilvlError, match="sub cannot be listed"):
        image_files(folder, skip_bad=True)


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    folder: Path, reason: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_at(folder / "sub", reason, monkeypatch)
    with pytest.raises(DistilvlError, match=f"sub cannot be listed: {reason.strerror}"):
        image_files(folder)


def test_a_folder_that_was_deleted_a_moment_ago_is_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", FileNotFoundError(2, "No such file or directory"), monkeypatch)
    assert image_files(folder) == ["a.png", "b.png", "c.png"]


def _fail_at(place: Path, reason: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == place:
            raise OSError(reason.errno, reason.strerror, str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


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


def test_images_and_lines(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\r\n\r\ntwo\r\none\r\n  \nthree")
    with caplog.at_level(logging.INFO, "distilvl"):
        data = read_unpaired(folder, texts)
    assert data.name == "album+texts"
    assert [image.image_id for image in data.images] == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert data.images[3].image.read() == (folder / "sub" / "d.png").read_bytes()
    assert data.texts == ("one", "two", "three")
    assert "left out 1 of 4 lines" in caplog.text


def test_a_side_with_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n")
    with pytest.raises(DistilvlError, match="has no texts"):
        read_unpaired(folder, tmp_path / "texts.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilvlError, match="has no images"):
        read_unpaired(tmp_path / "empty", tmp_path / "texts.txt")


def test_repeated_ids_and_texts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    images = read_unpaired(folder, tmp_path / "texts.txt").images
    with pytest.raises(DistilvlError, match=r"twice among its images: 'b\.png'"):
        UnpairedDataset("x", (*images, images[1]), ("one",))
    with pytest.raises(DistilvlError, match="twice among its texts: 'one'"):
        UnpairedDataset("x", images, ("one", "two", "one"))


def test_what_is_left_out_is_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n")
    (folder / "x.CR2").write_bytes(b"x")
    (folder / "dead.png").symlink_to("nowhere")
    with pytest.raises(BadImageError, match=r"dead\.png is missing .*--skip-bad"):
        read_unpaired(folder, tmp_path / "texts.txt")
    data = read_unpaired(folder, tmp_path / "texts.txt", skip_bad=True)
    assert len(data) == 4
    assert data.left_out.counts == {"RAW (.cr2), which is not read": 1, MISSING: 1}
