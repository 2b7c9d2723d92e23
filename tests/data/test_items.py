from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.data.crops import unique_captions, unique_images
from distilvl.data.left_out import MISSING
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key


@pytest.fixture
def pictures(tmp_path: Path) -> PairDataset:
    """Twelve images, the last with the bytes of the first; 24 captions, one of them on every image."""
    records = []
    for k in range(12):
        path = tmp_path / f"{k:02d}.png"
        path.write_bytes(b"image %d" % (k % 11))
        records.append(Record(path.name, FileImage(str(path)), (f"picture {k}", "a picture"), "train"))
    return PairDataset("pictures", tuple(records))


def test_unique_images_are_by_content(pictures: PairDataset):
    images, unreadable = unique_images(pictures)
    assert unreadable == {}
    assert [source.name for source in images[image_key(pictures[0].image.read())]] == [
        pictures[0].image.name,
        pictures[11].image.name,
    ]
    assert [sources[0].name for sources in images.values()] == [record.image.name for record in pictures[:11]]


def test_unreadable_image(pictures: PairDataset):
    Path(pictures[3].image.name).unlink()
    with pytest.raises(BadImageError, match=r"03\.png"):
        unique_images(pictures)
    images, unreadable = unique_images(pictures, skip_bad=True)
    assert (len(images), unreadable) == (10, {pictures[3].image.name: MISSING})


def test_unique_captions(pictures: PairDataset):
    assert list(unique_captions(pictures).values()) == ["picture 0", "a picture"] + [
        f"picture {k}" for k in range(1, 12)
    ]
