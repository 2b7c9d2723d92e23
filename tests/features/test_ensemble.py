from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore, Manifest
from distilvl.features.ensemble import absolute, is_ensemble, is_there
from distilvl.io.hashes import text_key

KEYS = [text_key(str(k)) for k in range(4)]
RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(4, 3))


def make(folder: Path, rows: np.ndarray, name: str, **more: object) -> Path:
    manifest = Manifest(teacher=name, revision="1", dim=rows.shape[1], num_parameters=5)
    store = FeatureStore.create(folder / name, replace(manifest, **more))
    store.add("image", KEYS[: len(rows)], rows)
    store.add("text", KEYS[: len(rows)], -rows)
    return store.path


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_mean_and_concat_by_hand(tmp_path: Path):
    a, b = make(tmp_path, A, "a"), make(tmp_path, B, "b", normalized=False)
    mean = FeatureStore.open(f"mean:{a},{b}")
    np.testing.assert_allclose(mean.images(KEYS[::-1]), unit(unit(A) + unit(B))[::-1], atol=2e-3)
    concat = FeatureStore.open(Path(f"concat:{a},{b}"))
    np.testing.assert_allclose(concat.texts(KEYS), -np.hstack([unit(A), unit(B)]) / np.sqrt(2), atol=1e-3)
    similarity = concat.images(KEYS).astype(float) @ concat.images(KEYS).astype(float).T
    np.testing.assert_allclose(similarity, (unit(A) @ unit(A).T + unit(B) @ unit(B).T) / 2, atol=3e-3)
    assert mean.images(KEYS).dtype == np.float16


def test_manifest_and_counts(tmp_path: Path):
    a, b = make(tmp_path, A, "a"), make(tmp_path, B[:3, :2], "b")
    concat = FeatureStore.open(f"concat:{a},{b}")
    assert (concat.manifest.teacher, concat.manifest.revision, concat.manifest.dim) == ("concat(a, b)", "1+1", 5)
    assert (concat.manifest.normalized, concat.manifest.num_parameters) == (True, 10)
    assert concat.counts == {"image": 3, "text": 3}
    assert concat.missing("image", KEYS) == [3]
    assert (concat.verify().images, concat.verify().shards) == (3, 4)
    with pytest.raises(DistilvlError, match=r"b lacks the text 'four'"):
        concat.texts(KEYS, ["one", "two", "three", "four"])


@pytest.mark.parametrize("spec", ["mean:{a}", "mean:{a},", "concat: ,{a}"])
def test_fewer_than_two(tmp_path: Path, spec: str):
    with pytest.raises(DistilvlError, match="is no ensemble"):
        FeatureStore.open(spec.format(a=make(tmp_path, A, "a")))


def test_mean_of_different_dimensions(tmp_path: Path):
    a, b = make(tmp_path, A, "a"), make(tmp_path, B[:, :2], "b")
    with pytest.raises(DistilvlError, match=r"one dimension, and these have 3 and 2.*concat"):
        FeatureStore.open(f"mean:{a},{b}")


def test_opposite_rows_have_no_mean(tmp_path: Path):
    a, b = make(tmp_path, A, "a"), make(tmp_path, -A, "b")
    with pytest.raises(DistilvlError, match="image 'cat' cancel out"):
        FeatureStore.open(f"mean:{a},{b}").images(KEYS[:1], ["cat"])


def test_it_is_only_read(tmp_path: Path):
    ensemble = FeatureStore.open(f"mean:{make(tmp_path, A, 'a')},{make(tmp_path, B, 'b')}")
    with pytest.raises(DistilvlError, match="is an ensemble of several stores"):
        ensemble.add("image", KEYS, A)


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert is_ensemble("mean:a")
    (tmp_path / "mean:a").mkdir()
    assert not is_ensemble("mean:a")


def test_whether_all_folders_are_there(tmp_path: Path):
    a, b = make(tmp_path, A, "a"), make(tmp_path, B, "b")
    assert is_there(a)
    assert is_there(Path(f"mean:{a}, {b}"))
    assert not is_there(f"mean:{a},{tmp_path / 'gone'}")
    assert not is_there(tmp_path / "gone")


def test_an_absolute_name_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, A, "a"), make(tmp_path, B, "b")
    monkeypatch.chdir(tmp_path)
    names = [absolute(name) for name in ("a", "mean: a,b", Path("concat:a,b"))]
    (tmp_path / "within").mkdir()
    monkeypatch.chdir(tmp_path / "within")
    counts = [FeatureStore.open(name).counts for name in names]
    assert counts == 3 * [{"image": 4, "text": 4}]
    assert [absolute(name) for name in names] == names
