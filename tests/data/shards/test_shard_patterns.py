from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.data.left_out import LeftOut
from distilvl.data.shards.pairs import find_shards
from distilvl.data.specs import parse_spec
from distilvl.errors import DistilvlError


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
