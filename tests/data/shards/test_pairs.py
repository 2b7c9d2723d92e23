from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.inspection import inspect_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset
from distilvl.data.shards import is_webdataset, one_split, open_split
from distilvl.data.shards.pairs import find_shards
from distilvl.data.specs import parse_spec
from distilvl.errors import BadImageError, DistilvlError
from distilvl.pictures import decode_image

Picture = Callable[[int], bytes]


def test_a_folder_of_shards_is_a_dataset(shards: Path, picture: Picture):
    dataset = load_dataset(f"webdataset:{shards}")
    assert dataset.splits == {"train": 14, "val": 3}
    val = dataset.split("val")
    assert [record.image_id for record in val] == ["val-0/0014", "val-0/0015", "val-0/0016"]
    assert val[0].captions == ("picture 14", "number 14")
    assert [record.image.read() for record in dataset] == [picture(k) for k in range(17)]
    assert val[0].image.name == f"{shards}/val-0.tar: 0014.png"


def test_one_split_alone(shards: Path):
    (shards / "train-0.tar").write_bytes(b"damaged")
    source = one_split(f"webdataset:{shards}", "val")
    assert source == f"webdataset:{shards}?split=val" == one_split(source, "val")
    assert load_dataset(source).splits == {"val": 3}
    assert one_split("photos?x", "val") == "photos?x"
    assert is_webdataset(source)
    assert not is_webdataset(str(shards))


def test_shards_of_the_same_name_in_two_folders(tmp_path: Path, write_tar, picture: Picture):
    for k, split in enumerate(("train", "val")):
        write_tar(tmp_path / split / "000.tar", {"1.png": picture(k), "1.txt": b"one"})
    assert [(record.image_id, record.split) for record in load_dataset(f"webdataset:{tmp_path}")] == [
        ("train/000/1", "train"),
        ("val/000/1", "val"),
    ]


@pytest.mark.parametrize(
    ("texts", "captions"),
    [
        ({"1.txt": b"one\r\n\r\n two \n"}, ("one", " two ")),
        ({"1.txt": "\ufeffun caf\u00e9".encode()}, ("un caf\u00e9",)),
        ({"1.txt": b"a\x00b\x1b[31mc"}, ("a b [31mc",)),
        ({"1.txt": b"word " * 10_000}, ("word " * 10_000,)),
        ({"1.json": b'{"caption": "one", "width": 4}'}, ("one",)),
        ({"1.json": b'{"captions": ["one", " ", "two"], "caption": "three"}'}, ("one", "two", "three")),
        ({"1.json": b'{"sha256": "x"}', "1.txt": b"one"}, ("one",)),
    ],
)
def test_captions(tmp_path: Path, write_tar, picture: Picture, texts: dict[str, bytes], captions: tuple[str, ...]):
    write_tar(tmp_path / "a.tar", {"1.png": picture(0), **texts})
    source = f"webdataset:{tmp_path}/a.tar"
    assert load_dataset(source)[0].captions == captions
    streamed = open_split(source, "train").captions
    assert tuple(streamed) == captions
    assert len(streamed) == len(captions)
    assert captions[0] in streamed


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ({"1.txt": b" \n"}, r"\(1\.txt\) holds no caption"),
        ({"1.txt": "caf\u00e9".encode("cp1252")}, r"\(1\.txt\), line 1 is not UTF-8 text \(byte 3 is 0xe9\)"),
        ({"1.json": b'{"caption": '}, r"\(1\.json\) is not valid JSON"),
        ({"1.json": b"[" * 100_000}, r"\(1\.json\) is not valid JSON"),
        ({"1.json": b'"one"'}, r"\(1\.json\) is not an object"),
        ({"1.json": b'{"captions": "one"}'}, "'captions' is not a list"),
        ({"1.json": b'{"caption": 7}'}, "the caption is 7, not a string"),
        ({"1.json": b'{"caption": "\\ud83d"}'}, "not valid Unicode"),
        ({"1.json": b'{"text": "one"}'}, r"\(1\.json\) holds no caption"),
    ],
)
def test_bad_captions(
    tmp_path: Path, write_tar, picture: Picture, texts: dict[str, bytes], why: str, caplog: pytest.LogCaptureFixture
):
    write_tar(tmp_path / "a.tar", {"1.png": picture(0), **texts, "2.png": picture(1), "2.txt": b"two"})
    source = f"webdataset:{tmp_path}/a.tar"
    with pytest.raises(DistilvlError, match=rf"a\.tar: 1\.png .*{why}"):
        load_dataset(source)
    with pytest.raises(DistilvlError, match=why):
        open_split(source, "train")
    with caplog.at_level(logging.WARNING, "distilvl"):
        assert [record.image_id for record in load_dataset(source, skip_bad=True)] == ["a/2"]
    assert "left out 1 (" in caplog.text
    kept = open_split(source, "train", skip_bad=True).captions
    assert list(kept) == ["two"]
    assert len(kept) == 1


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_images() -> dict[str, tuple[str, bytes, tuple[int, int, int]]]:
    """By name: kind of file, bytes, and the colour at the upper left after decoding."""
    rotated = Image.new("RGB", (6, 4), "blue")
    rotated.putpixel((0, 3), (255, 0, 0))  # upright after a quarter turn to the right, it is at the upper left
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    animated = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return {
        "cmyk": ("jpg", encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95), (0, 255, 255)),
        "deep": ("png", encoded(Image.fromarray(np.full((4, 4), 0xA0FF, np.uint16)), "PNG"), (160, 160, 160)),
        "palette": ("bmp", encoded(palette, "BMP"), (0, 0, 255)),
        "animated": ("webp", animated, (255, 0, 0)),
        "rotated": ("png", encoded(rotated, "PNG", exif=exif), (255, 0, 0)),
        "plain": ("ppm", encoded(Image.new("RGB", (4, 4), "lime"), "PPM"), (0, 255, 0)),
        "other": ("jpeg", encoded(Image.new("L", (4, 4), 128), "PNG"), (128, 128, 128)),
    }


def test_odd_images_are_decoded_as_everywhere(tmp_path: Path, write_tar):
    odd = odd_images()
    members = {}
    for name, (kind, data, _) in odd.items():
        members |= {f"{name}.{kind}": data, f"{name}.txt": b"one"}
    write_tar(tmp_path / "a.tar", members)
    dataset = load_dataset(f"webdataset:{tmp_path}/a.tar")
    for record, (name, (_, data, colour)) in zip(dataset, odd.items(), strict=True):
        image = decode_image(record.image.read(), record.image.name)
        assert np.abs(np.subtract(image.getpixel((0, 0)), colour)).max() <= 6, name
        assert record.image.read() == data
    assert decode_image(dataset[4].image.read(), "n").size == (4, 6)


def test_a_shard_that_is_gone_or_cut(shards: Path):
    record = load_dataset(f"webdataset:{shards}")[0]
    (shards / "train-0.tar").write_bytes((shards / "train-0.tar").read_bytes()[:560])
    with pytest.raises(BadImageError, match=r"train-0\.tar: 0000\.png is cut off"):
        record.image.read()
    (shards / "train-0.tar").unlink()
    with pytest.raises(BadImageError, match=r"cannot read .*train-0\.tar: 0000\.png"):
        record.image.read()


def test_refused_members_are_left_out_with_skip_bad(tmp_path: Path, write_tar, picture: Picture):
    write_tar(tmp_path / "a.tar", {"../1.png": picture(0), "2.png": picture(1), "2.txt": b"two"})
    with pytest.raises(DistilvlError, match=r"'\.\./1\.png' is a name that leaves its folder \(1 such in 1 shards\)"):
        load_dataset(f"webdataset:{tmp_path}/a.tar")
    assert len(load_dataset(f"webdataset:{tmp_path}/a.tar", skip_bad=True)) == 1


def test_records_written_by_the_package_of_the_format(tmp_path: Path, picture: Picture):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/train-%02d.tar", maxcount=4, verbose=0) as writer:
        for k in range(10):
            writer.write({"__key__": f"{k:03d}", "png": picture(k), "json": {"caption": f"one {k}"}, "cls": k})
    dataset = load_dataset(f"webdataset:{tmp_path}")
    assert [record.captions for record in dataset] == [(f"one {k}",) for k in range(10)]
    assert [record.image.read() for record in dataset] == [picture(k) for k in range(10)]
    again = webdataset.WebDataset([f"{tmp_path}/train-{k:02d}.tar" for k in range(3)], shardshuffle=False)
    assert [json.loads(sample["json"])["caption"] for sample in again] == [record.captions[0] for record in dataset]


def test_inspect(shards: Path):
    found = inspect_dataset(load_dataset(f"webdataset:{shards}", skip_bad=True))
    assert (found.images, found.bad) == ({"train": 14, "val": 3}, ())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("webdataset:", "names no place"),
        ("webdataset:{0}?lanes=0", "lanes is '0'"),
        ("webdataset:{0}?buffer=many", "buffer is 'many'"),
        ("webdataset:{0}?shuffle=1", "no option 'shuffle'.*Did you mean 'buffer'"),
        ("webdataset:{0}/train-1.tar", "has no records"),
    ],
)
def test_splits_that_cannot_be_opened(shards: Path, source: str, words: str):
    def load() -> PairDataset:
        load_dataset(source.format(shards))
        return open_split(source.format(shards), "train")

    with pytest.raises(DistilvlError, match=words):
        load()


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("train-000", "train-001", "val-000", "0003", "validation/000", "test/00"):
        path = tmp_path / f"{name}.tar"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / ".hidden.tar").touch()
    (tmp_path / "x.tar.gz").touch()
    return tmp_path


def found(source: str, root: Path) -> dict[str, str]:
    spec = parse_spec(source)
    assert spec is not None
    return {path.relative_to(root).as_posix(): split for path, split in find_shards(spec, LeftOut())}


def test_folder(tars: Path):
    assert found(f"webdataset:{tars}", tars) == {
        "0003.tar": "train",
        "test/00.tar": "test",
        "train-000.tar": "train",
        "train-001.tar": "train",
        "val-000.tar": "val",
        "validation/000.tar": "val",
    }


def test_signs_of_the_shell(tars: Path):
    assert list(found(f"webdataset:{tars}/train-*.tar", tars)) == ["train-000.tar", "train-001.tar"]
    assert list(found(f"webdataset:{tars}/**/00[0-9].tar", tars)) == ["validation/000.tar"]


def test_braces(tars: Path):
    pytest.importorskip("braceexpand")
    assert list(found(f"webdataset:{tars}/{{train-{{000..001}},val-000}}.tar", tars)) == [
        "train-000.tar",
        "train-001.tar",
        "val-000.tar",
    ]
    with pytest.raises(DistilvlError, match=r"there is no shard .*train-002.tar \(2 of 4 are missing\)"):
        found(f"webdataset:{tars}/train-{{000..003}}.tar", tars)
    with pytest.raises(DistilvlError, match="a brace too many or too few"):
        found(f"webdataset:{tars}/train-{{000..003.tar", tars)


def test_splits_that_are_named(tars: Path):
    source = f"webdataset:{tars}/train-*.tar?val={tars}/train-001.tar&test={tars}/0003.tar"
    assert found(source, tars) == {"0003.tar": "test", "train-000.tar": "train", "train-001.tar": "val"}
    with pytest.raises(DistilvlError, match="is named for val and for test"):
        found(f"webdataset:{tars}?val={tars}/0003.tar&test={tars}/0003.tar", tars)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_one_split(tars: Path, name: str):
    assert list(found(f"webdataset:{tars}?split={name}", tars)) == ["val-000.tar", "validation/000.tar"]
    with pytest.raises(DistilvlError, match=r"split 'extra' of .* is empty\. Its splits are: test, train, val"):
        found(f"webdataset:{tars}?split=extra", tars)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{root}/nothing*.tar", "names no shards"),
        ("{root}/x.tar.gz", r"x\.tar\.gz is not a \.tar file.*Decompress it"),
        ("pipe:touch {root}/owned", "is neither a path nor a plain address"),
        ("pipe:curl https://host/x.tar", "is neither a path nor a plain address"),
    ],
)
def test_places_without_shards(tars: Path, place: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        found(f"webdataset:{place.format(root=tars)}", tars)
    assert not (tars / "owned").exists()
