"""`distilvl.train` with data, teachers, stores and settings that are objects instead of names."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import distilvl
from distilvl.data import FileImage, PairDataset, Record, UnpairedDataset, UnpairedImage
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.training.inputs import Inputs
from distilvl.training.run_folder import load_tensors, read_metrics
from distilvl.training.train import settings_of
from distilvl.training.trainer import Trainer

SETTINGS = {
    "training": {"batch_size": 8, "epochs": 2, "precision": "fp32", "log_every": 1, "checkpoint_every": 2},
    "objective.cd.queue": 20,
}
LISTED = [
    "training.batch_size=8", "training.epochs=2", "training.precision=fp32", "training.log_every=1",
    "training.checkpoint_every=2", "objective.cd.queue=20",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """16 pictures of noise to train on and 8 to score, two captions each."""
    made = tmp_path / "pictures"
    made.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for k in range(24):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(made / f"{k:02d}.png")
        captions = [f"picture number {k}", f"the {k}th of them"]
        line = {"image": f"{k:02d}.png", "captions": captions, "split": "train" if k < 16 else "val"}
        lines.append(json.dumps(line))
    (made / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def dataset(folder: Path) -> PairDataset:
    """Made by hand, anew at each call."""
    lines = map(json.loads, (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines())
    records = [Record(x["image"], FileImage(str(folder / x["image"])), tuple(x["captions"]), x["split"]) for x in lines]
    return PairDataset("mine", tuple(records))


def colour_teacher(spec: str) -> Any:
    path, _, name = spec.rpartition(":")
    found = importlib.util.spec_from_file_location("colours", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return getattr(module, name)()


def same_end(one: Path, other: Path) -> None:
    """That two runs have the same last checkpoint, student and readings."""
    first, second = (load_tensors(run / "checkpoints" / "last.safetensors")[0] for run in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for path in (one / "student").rglob("*.safetensors"):
        assert path.read_bytes() == (other / "student" / path.relative_to(one / "student")).read_bytes()
    lines = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    for line in itertools.chain(*lines):
        line.pop("pairs_per_s", None)
    assert lines[0] == lines[1]


def test_objects_make_the_run_that_their_names_make_and_a_stopped_one_continues(
    folder: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"student": student_yaml, "device": "cpu"}
    distilvl.train(data=folder, teacher=teacher, out=tmp_path / "named", overrides=LISTED, **given)

    def run(out: Path) -> None:
        objects = {"data": dataset(folder), "teacher": colour_teacher(teacher)}
        distilvl.train(**objects, out=out, overrides=SETTINGS, **given)

    run(tmp_path / "whole")
    same_end(tmp_path / "named", tmp_path / "whole")
    inputs = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text(encoding="utf-8"))["inputs"]
    assert (inputs["data"], inputs["teacher"]) == ("object:mine", "object:colour")
    assert FeatureStore.open(tmp_path / "whole" / "features").counts == {"image": 24, "text": 48}

    update, calls = Trainer.update, itertools.count(1)

    def stop(self: Trainer, batch: Any) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts")
    run(tmp_path / "parts")
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_store_object_is_named_by_its_path(folder: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": folder, "student": student_yaml, "overrides": LISTED, "device": "cpu"}
    distilvl.train(**given, teacher=teacher, out=tmp_path / "asked")
    store = tmp_path / "asked" / "features"
    distilvl.train(**given, features=store, out=tmp_path / "path")
    distilvl.train(**given, teacher=FeatureStore.open(store), out=tmp_path / "teacher")
    distilvl.train(**given, features=FeatureStore.open(store), out=tmp_path / "features")
    for run in ("asked", "teacher", "features"):
        same_end(tmp_path / "path", tmp_path / run)
    assert len({(tmp_path / run / "config.yaml").read_bytes() for run in ("path", "teacher", "features")}) == 1
    with pytest.raises(DistilvlError, match="both a teacher and a feature store"):
        distilvl.train(**given, teacher=FeatureStore.open(store), features=store, out=tmp_path / "both")


def test_a_run_of_objects_is_not_continued_without_them(
    folder: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    small: dict[str, Any] = {"student": student_yaml, "overrides": {**SETTINGS, "training.epochs": 1}, "device": "cpu"}
    distilvl.train(data=dataset(folder), teacher=colour_teacher(teacher), out=out, **small)
    recipe = str(out / "config.yaml")
    with pytest.raises(
        DistilvlError, match=r"teacher 'colour' of this run is an object.*distilvl\.train\(teacher=\.\.\.\)"
    ):
        distilvl.train(recipe=recipe, data=dataset(folder), out=tmp_path / "again")
    with pytest.raises(DistilvlError, match=r"data 'mine' of this run is an object.*distilvl\.train\(data=\.\.\.\)"):
        distilvl.train(recipe=recipe, teacher=colour_teacher(teacher), out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_unpaired_data_may_be_an_object_too(folder: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    images = tuple(UnpairedImage(f"{k}", FileImage(str(folder / f"{k:02d}.png"))) for k in range(16))
    loose = UnpairedDataset("loose", images, tuple(f"a text {k}" for k in range(20)))
    settings = {**SETTINGS, "training.epochs": 1}
    objects: dict[str, Any] = {"data": loose, "val_data": dataset(folder), "teacher": teacher, "student": student_yaml}
    distilvl.train(**objects, out=tmp_path / "run", overrides=settings, device="cpu")
    assert (tmp_path / "run" / "result.json").is_file()
    with pytest.raises(DistilvlError, match="needs images with their captions"):
        distilvl.train(**objects, out=tmp_path / "kd", overrides={"objective.losses": ["cd", "kd"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": 5}, r"data is of the type int\..*a path, a PairDataset or an UnpairedDataset"),
        ({"data": "scenes", "val_data": ["a"]}, r"val_data is of the type list\..*a PairDataset"),
        (
            {"data": "scenes", "teacher": 5},
            r"teacher is of the type int\..*FeatureStore, or an object with encode_images",
        ),
        ({"data": "scenes", "features": 5}, r"features is of the type int\..*FeatureStore"),
        ({"data": "scenes", "overrides": "training.epochs=1"}, "one text"),
        (
            {"data": "scenes", "overrides": {"training.epochs": object()}},
            r"training\.epochs is of the type object\..*numbers",
        ),
        ({"data": "scenes", "overrides": {"training": {"epoch": 1}}}, r"unknown key.*training\.epochs\?"),
    ],
)
def test_what_is_of_another_type_is_told_the_types_that_are_taken(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DistilvlError, match=message):
        distilvl.train(**given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_in_a_dict_have_the_values_that_they_have() -> None:
    nested = {"a": {"b": 1e-5, "c.d": [0.9, 1e-8]}, "e": None, "f": True, "g": {"h": "no: such", "i": "1e-3x", "j": {}}}
    assert settings_of(nested) == [
        "a.b=1.0e-05", "a.c.d=[0.9, 1.0e-08]", "e=null", "f=true", "g.h='no: such'", "g.i=1e-3x", "g.j={}",
    ]  # fmt: skip
    assert settings_of(["a=1"]) == ["a=1"]


def test_two_datasets_of_one_name_are_told_apart(folder: Path) -> None:
    inputs, first = Inputs(), dataset(folder)
    assert inputs.name_data(first, "data") == inputs.name_data(first, "val_data") == "object:mine"
    with pytest.raises(DistilvlError, match="two different datasets are named 'mine'"):
        inputs.name_data(dataset(folder), "val_data")


def test_the_old_name_of_device_is_taken_with_a_notice(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="device="), pytest.raises(DistilvlError, match="no data is named"):
        distilvl.train(out=tmp_path / "run", accelerator="cpu")
