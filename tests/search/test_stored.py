"""Photographs with their teacher's stored embeddings, beside others that the student encoded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import distilvl
from distilvl.cli import app
from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore, Manifest, image_key
from distilvl.models.encoder import Encoder
from distilvl.models.loading import load_encoder
from distilvl.pictures import decode_image
from distilvl.search import Index, index_folder
from distilvl.search.about import About
from distilvl.students.folder import BASIS_NAME, read_basis

Rows = npt.NDArray[np.float32]
TEXT = "red"


def fill(store: FeatureStore, paths: Sequence[Path]) -> None:
    """Give a store an embedding of each photograph that no model here would give it."""
    keys = [image_key(path.read_bytes()) for path in paths]
    rows = [np.random.default_rng(list(key)).normal(size=store.manifest.dim) for key in keys]
    store.add("image", keys, np.stack(rows))


def held(store: FeatureStore, path: Path) -> Rows:
    """What a store has of a photograph, L2-normalised in float32."""
    row = store.images([image_key(path.read_bytes())])[0].astype(np.float32)
    return row / np.linalg.norm(row)


def names(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))


@pytest.fixture
def store(tmp_path: Path, photos: Path) -> FeatureStore:
    """Of another model, with the first 20 of the 30 photographs."""
    made = FeatureStore.create(tmp_path / "store", Manifest(teacher="big", revision="7", dim=8))
    fill(made, names(photos)[:20])
    return made


def scores(index: Index, text: str = TEXT) -> dict[str, float]:
    return {hit.path: hit.score for hit in index.search(text, top=1000, copies=True)}


def expected(photos: Path, store: FeatureStore, encoder: Encoder, paths: Sequence[Path]) -> dict[str, float]:
    """By hand: the teacher's embedding where the store has one, else the model's, times the model's of the text."""
    query = encoder.encode_texts([TEXT])[0]
    found = {}
    for path in paths:
        data = path.read_bytes()
        lacking = store.missing("image", [image_key(data)])
        row = encoder.encode_images([decode_image(data, "")])[0] if lacking else held(store, path)
        found[path.as_posix()] = float(row @ query)
    return found


def test_scores_are_products_of_stored_images_and_the_models_texts(photos, tmp_path, encoder, colours, store) -> None:
    report = index_folder(photos, tmp_path / "i", encoder, features=store.path)
    assert (report.added, report.stored, report.encoded, colours.shown) == (30, 20, 10, 10)
    assert (report.total, report.total_stored) == (30, 20)
    index = Index.open(tmp_path / "i", encoder)
    assert scores(index) == pytest.approx(expected(photos, store, encoder, names(photos)), abs=1e-6)
    assert (index.stored.teacher, index.stored.revision) == ("big", "7")
    found = index.search(image=names(photos)[25], top=1)[0]
    assert (found.path, round(found.score, 5)) == (names(photos)[25].as_posix(), 1), "a picture goes through the model"


def test_a_store_with_all_photographs_needs_no_model(photos, tmp_path, encoder, colours, store) -> None:
    fill(store, names(photos)[20:])
    report = index_folder(photos, tmp_path / "i", encoder, features=store)
    assert (report.stored, report.encoded, colours.shown) == (30, 0, 0)


def test_later_updates_ask_the_store_first(photos, tmp_path, encoder, colours, store, paint) -> None:
    index_folder(photos, tmp_path / "i", encoder, features=store.path)
    colours.shown = 0
    for name in ("known.png", "strange.png"):
        paint(photos / name, name)
    fill(store, [photos / "known.png"])
    shutil.copy(names(photos)[0], photos / "copy.png")
    names(photos)[1].unlink()
    paint(names(photos)[2], "changed", size=(50, 20))
    index = Index.open(tmp_path / "i", encoder)
    report = index.update(photos)
    assert (report.added, report.changed, report.deleted) == (3, 1, 1)
    assert (report.stored, report.encoded, colours.shown) == (1, 2, 2)
    assert scores(index) == pytest.approx(expected(photos, store, encoder, names(photos)), abs=1e-6)
    again = index.update(photos)
    assert (again.unchanged, again.stored, again.encoded) == (len(names(photos)), 0, 0)


def test_a_photograph_that_the_store_learns_of_later_is_exchanged(photos, tmp_path, encoder, colours, store) -> None:
    """All its copies, without a new encoding, in other folders too."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(names(photos)[29], other / "copy.png")
    index = Index.create(tmp_path / "i", encoder, features=store.path)
    index.update(photos)
    index.update(other)
    reader = Index.open(tmp_path / "i", encoder)
    before = scores(reader)
    colours.shown = 0
    fill(store, names(photos)[28:])
    report = index.update(photos)
    assert (report.stored, report.unchanged, report.total, report.total_stored) == (2, 30, 31, 23)
    assert colours.shown == 0
    paths = [*names(photos), other / "copy.png"]
    assert scores(index) == pytest.approx(expected(photos, store, encoder, paths), abs=1e-6)
    assert scores(index) != before


def test_an_index_without_a_store_takes_one(photos, index, encoder, colours, store) -> None:
    """Such as one of an earlier version, whose table has no column for it."""
    assert "stored" not in json.loads((index.path / "distilvl-index.json").read_text())
    assert index.stored is None
    reader = Index.open(index.path, encoder)
    shown = colours.shown
    report = index_folder(photos, index.path, encoder, features=store.path)
    assert (report.unchanged, report.stored, report.encoded, report.total_stored) == (30, 20, 0, 20)
    assert colours.shown == shown
    assert scores(Index.open(index.path, encoder)) == pytest.approx(
        expected(photos, store, encoder, names(photos)), abs=1e-6
    )
    assert len(scores(reader)) == 30
    assert reader.update(photos).unchanged == 30


def test_a_stopped_exchange_goes_on(photos, index, encoder, store, monkeypatch) -> None:
    monkeypatch.setattr("distilvl.search.update.COMMIT_ROWS", 4)
    index.use_features(store.path)
    real, commits = index._table.write, []

    def write(rows: Any, *, replacing: bool) -> None:
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(len(rows))
        real(rows, replacing=replacing)

    monkeypatch.setattr(index._table, "write", write)
    with pytest.raises(KeyboardInterrupt):
        index.update(photos)
    monkeypatch.undo()
    report = Index.open(index.path, encoder).update(photos)
    assert report.stored == 20 - sum(commits)
    assert report.total_stored == 20


def test_a_store_that_moved_is_named_again(photos, tmp_path, encoder, store, paint) -> None:
    index_folder(photos, tmp_path / "i", encoder, features=store.path)
    store.path.rename(tmp_path / "moved")
    index = Index.open(tmp_path / "i", encoder)
    with pytest.raises(DistilvlError, match=r"the feature store of .* cannot be opened.*--features"):
        index.update(photos)
    assert len(scores(index)) == 30, "a search does not need it"
    index.use_features(tmp_path / "moved")
    assert index.update(photos).unchanged == 30
    assert About.load(index.path).stored.features == (tmp_path / "moved").as_posix()


def test_stores_that_do_not_fit(photos, tmp_path, encoder, store) -> None:
    wide = FeatureStore.create(tmp_path / "wide", Manifest(teacher="big", revision="7", dim=9))
    with pytest.raises(DistilvlError, match=r"wide has dimension 9, and the model colours 8\. Give a store of the"):
        index_folder(photos, tmp_path / "i", encoder, features=wide.path)
    with pytest.raises(DistilvlError, match="is not a feature store"):
        index_folder(photos, tmp_path / "i", encoder, features=photos)
    assert not (tmp_path / "i").exists()
    index_folder(photos, tmp_path / "i", encoder, features=store.path)
    other = FeatureStore.create(tmp_path / "other", Manifest(teacher="big", revision="8", dim=8))
    with pytest.raises(DistilvlError, match=r"of 'big' revision '7', not of 'big' revision '8'.*--rebuild"):
        index_folder(photos, tmp_path / "i", encoder, features=other.path)
    shutil.rmtree(store.path)
    other.path.rename(store.path)
    with pytest.raises(DistilvlError, match=r"holds features of 'big' revision '8'\. Give a store of that teacher"):
        Index.open(tmp_path / "i", encoder).update(photos)


def test_a_rebuild_with_a_model_takes_the_features_that_are_given_with_it(photos, tmp_path, encoder, store) -> None:
    index_folder(photos, tmp_path / "i", encoder, features=store.path)
    report = index_folder(photos, tmp_path / "i", encoder, rebuild=True)
    assert (report.stored, report.encoded, report.total_stored) == (0, 30, 0)
    assert Index.open(tmp_path / "i").stored is None
    report = index_folder(photos, tmp_path / "i", encoder, rebuild=True, features=store.path)
    assert (report.stored, report.encoded) == (20, 10)


def test_several_stores_read_as_one(photos, tmp_path, encoder, store, monkeypatch) -> None:
    second = FeatureStore.create(tmp_path / "second", Manifest(teacher="b", revision="1", dim=8))
    fill(second, names(photos)[10:])
    monkeypatch.chdir(tmp_path)
    report = index_folder(photos, tmp_path / "i", encoder, features="mean:store,second")
    assert report.total_stored == 10
    monkeypatch.chdir(photos)
    assert Index.open(tmp_path / "i", encoder).update(photos).unchanged == 30


def test_an_open_model_of_several_dimensions_does_not_tell_its_axes(photos, tmp_path, colours, store) -> None:
    colours.matryoshka_dims = (4,)
    with pytest.raises(DistilvlError, match=r"nothing tells the axes of the Matryoshka student colours.*Name its fold"):
        index_folder(photos, tmp_path / "i", Encoder(colours), features=store.path)


# With runs


def typed(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "distilvl", *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def shots(trained: tuple[Path, Path], tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """Eight pictures of the run's data, and two that its store lacks."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for k in range(8):
        shutil.copy(trained[0].parent / "pictures" / f"{k:02d}.png", folder)
    for name in ("red", "blue"):
        paint(folder / f"{name}.png", name)
    return folder


def test_a_run_and_its_store_as_typed(trained: tuple[Path, Path], shots: Path, tmp_path: Path) -> None:
    run, out = trained[0], tmp_path / "i"
    done = typed("index", shots, "--model", run, "--features", run / "features", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "2 encoded" in done.stdout
    assert "8 in the index have the teacher's stored embedding, 2 the model's own\n" in done.stdout
    hits = json.loads(typed("search", out, TEXT, "--top", "10", "--json").stdout)["hits"]
    by_hand = expected(shots, FeatureStore.open(run / "features"), load_encoder(run), names(shots))
    assert {hit["path"]: hit["score"] for hit in hits} == pytest.approx(by_hand, abs=1e-5)


def test_a_later_run_goes_on_with_the_store(
    photos: Path, tmp_path: Path, encoder: Encoder, store: FeatureStore
) -> None:
    index_folder(photos, tmp_path / "i", encoder, features=store.path)
    told = CliRunner().invoke(app, ["index", str(photos), "--out", str(tmp_path / "i"), "--json"])
    again = json.loads(told.stdout)
    assert (again["unchanged"], again["stored"], again["total"], again["total_stored"]) == (30, 0, 30, 20)


def test_a_run_tells_its_teacher(trained: tuple[Path, Path], shots: Path, tmp_path: Path) -> None:
    other = FeatureStore.create(tmp_path / "other", Manifest(teacher="colour", revision="2", dim=12))
    told = (
        r"distilled learnt from 'colour' revision '1', and the store .*other holds features of 'colour' revision '2'\."
    )
    with pytest.raises(DistilvlError, match=rf"{told} Give a store of that teacher") as caught:
        index_folder(shots, tmp_path / "i", trained[0], features=other.path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "i").exists()
    with pytest.raises(DistilvlError, match="learnt without a teacher, and is in no teacher's space"):
        index_folder(shots, tmp_path / "i", trained[1], features=trained[0] / "features")


@pytest.fixture(scope="module")
def several(trained: tuple[Path, Path], teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a Matryoshka student, on the data of `trained`."""
    out = tmp_path_factory.mktemp("several") / "run"
    distilvl.train(
        data=trained[0].parent / "pictures", teacher=teacher, student=trained[0].parent / "student.yaml", out=out,
        overrides=["training.batch_size=8", "training.epochs=1", "objective.dims=[4]"], device="cpu",
    )  # fmt: skip
    return out


def test_a_matryoshka_students_index_holds_the_teacher_in_the_students_axes(
    several: Path, shots: Path, tmp_path: Path, paint: Callable[..., Path], teacher: str
) -> None:
    run, out = tmp_path / "run", tmp_path / "i"
    shutil.copytree(several, run)
    store, basis = FeatureStore.open(several / "features"), read_basis(several / "student")
    assert basis is not None
    index_folder(shots, out, run, features=several / "features")
    query = load_encoder(several).encode_texts([TEXT])[0]

    def by_hand(path: Path) -> float:
        row = held(store, path) @ basis
        return float(row / np.linalg.norm(row) @ query)

    found = scores(Index.open(out))
    shown = [path for path in names(shots) if path.stem.isdigit()]
    assert {path.as_posix(): found[path.as_posix()] for path in shown} == pytest.approx(
        {path.as_posix(): by_hand(path) for path in shown}, abs=1e-5
    )
    assert found[shown[0].as_posix()] != pytest.approx(float(held(store, shown[0]) @ query), abs=1e-3)
    # The student has moved; what the store holds is turned all the same, and only the rest needs the student.
    run.rename(tmp_path / "elsewhere")
    new = shutil.copy(_picture(several, 9), shots / "new.png")
    report = index_folder(shots, out)
    assert (report.added, report.stored, report.encoded) == (1, 1, 0)
    index = Index.open(out, tmp_path / "elsewhere")
    assert scores(index)[Path(new).as_posix()] == pytest.approx(by_hand(Path(new)), abs=1e-5)
    paint(shots / "green.png", "green")
    with pytest.raises(DistilvlError, match="say where with --model"):
        index_folder(shots, out)
    assert index_folder(shots, out, tmp_path / "elsewhere").encoded == 1


def _picture(run: Path, number: int) -> Path:
    import yaml

    data = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["inputs"]["data"]
    return Path(data) / f"{number:02d}.png"


@pytest.mark.slow
def test_an_exported_matryoshka_student_has_its_axes_with_it(several: Path, shots: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from distilvl.export import Settings, export_student

    data = load_dataset(str(_picture(several, 0).parent))
    out = tmp_path / "exported"
    export_student(several, out, data, Settings(precisions=("fp32",), max_drop=600))
    index_folder(shots, tmp_path / "i", out, features=several / "features")
    index_folder(shots, tmp_path / "j", several, features=several / "features")
    assert scores(Index.open(tmp_path / "i")) == pytest.approx(scores(Index.open(tmp_path / "j")), abs=1e-4)
    (out / BASIS_NAME).unlink()  # as an earlier version exported it
    with pytest.raises(DistilvlError, match="export again"):
        index_folder(shots, tmp_path / "k", out, features=several / "features")


def test_a_teachers_own_store_saves_its_encodings(photos: Path, tmp_path: Path) -> None:
    """Two ways to the same index: the model is the teacher itself."""
    lines = [{"image": path.relative_to(photos).as_posix(), "captions": ["x"]} for path in names(photos)[:5]]
    (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    extract_features("demo", photos, tmp_path / "store")
    report = index_folder(photos, tmp_path / "i", "demo", features=tmp_path / "store")
    assert (report.stored, report.encoded) == (5, 25)
    index_folder(photos, tmp_path / "j", "demo")
    assert scores(Index.open(tmp_path / "i")) == pytest.approx(scores(Index.open(tmp_path / "j")), abs=1e-3)
