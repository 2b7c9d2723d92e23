"""Every kind of model through the one door, and what is said of names that are none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.colour_teacher import ColourTeacher
from tests.conftest import SMALL_STUDENT
from tests.teachers.http.test_http_teacher import spec as http_spec
from tests.teachers.test_third_party import FakeDistribution, install
from tests.teachers.test_transformers_model import save as save_model

from distilvl.data.scenes import scenes_dataset
from distilvl.errors import DistilvlError
from distilvl.extraction.extract import extract_features
from distilvl.features import FeatureStore
from distilvl.models import load_encoder, load_model, load_teacher, model_folder
from distilvl.models.loading import StoredModel
from distilvl.runtime import Runtime
from distilvl.students import build_student, load_student, save_student
from distilvl.teachers import Teacher
from distilvl.teachers.beit3 import Beit3Teacher
from distilvl.teachers.demo_network import DemoTeacher
from distilvl.teachers.http import HttpTeacher
from distilvl.teachers.open_clip import OpenClipTeacher
from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher
from distilvl.teachers.transformers_model import TransformersTeacher

COLOUR_FILE = Path(__file__).parents[1] / "colour_teacher.py"


def test_demo():
    assert isinstance(load_teacher("demo"), Teacher)


@pytest.mark.parametrize("spec", ["/nowhere/at/all", "../nothing", "no such thing", "a/b/c", ""])
def test_unknown_spec_lists_what_is_accepted(spec: str):
    with pytest.raises(DistilvlError, match=r"no teacher .*'demo'.*file\.py:Class.*SentenceTransformer"):
        load_teacher(spec)


def test_unreachable_id_is_one_line():
    with pytest.raises(DistilvlError, match=r"'nobody/nothing-at-all' .*cannot be fetched.*Accepted are") as caught:
        load_teacher("nobody/nothing-at-all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["openai+https://host/v1?model=a:b.py", "jina+http://host:80", "v0+https://h/x.py:C"])
def test_an_http_dialect_gets_the_whole_spec(spec: str, monkeypatch: pytest.MonkeyPatch):
    module, seen = ModuleType("distilvl.teachers.http"), []

    class HttpTeacher:
        from_spec = staticmethod(lambda spec: seen.append(spec) or "the teacher")

    module.HttpTeacher = HttpTeacher  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distilvl.teachers.http", module)
    assert load_teacher(spec) == "the teacher"
    assert seen == [spec]


@pytest.mark.parametrize("spec", ["https://host/v1", "Open AI+https://host", "openai+ftp://host"])
def test_other_addresses_are_no_teachers(spec: str):
    with pytest.raises(DistilvlError, match="there is no teacher"):
        load_teacher(spec)


@pytest.mark.parametrize("given", [None, 3, object(), ["demo"]])
def test_what_is_no_text_is_no_teacher(given: object):
    with pytest.raises(DistilvlError, match=rf"named by a text, not by a {type(given).__name__}"):
        load_teacher(given)  # type: ignore[arg-type]


def test_a_path_is_a_name_too(tmp_path: Path):
    with pytest.raises(DistilvlError, match="does not exist"):
        load_teacher(tmp_path / "teacher.py:Mine")


IMAGES, TEXTS = [Image.new("RGB", (48, 40), "red")], ["a red circle"]


class Ours(ColourTeacher):
    """An open model."""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of a finished run."""
    run = tmp_path_factory.mktemp("runs") / "run"
    (run.parent / "student.yaml").write_text(SMALL_STUDENT, encoding="utf-8")
    model = build_student(run.parent / "student.yaml", 12, captions=["a red circle", "a blue square"])
    save_student(model, run / "student")
    (run / "config.yaml").write_text("inputs: {data: scenes}\n", encoding="utf-8")
    return run / "student"


@pytest.fixture(scope="module")
def exported(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That student, exported."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from distilvl.export import Settings, export_student

    out = tmp_path_factory.mktemp("exported") / "small"
    scenes = scenes_dataset(train=2, val=4, test=0)
    export_student(student.parent, out, scenes, Settings(precisions=("fp32",), max_drop=600))
    return out


def dual_encoder(request: pytest.FixtureRequest) -> Path:
    return save_model("clip", request.getfixturevalue("tmp_path") / "clip")


def beit3(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    return request.getfixturevalue("checkpoint"), request.getfixturevalue("vocabulary")


def store(request: pytest.FixtureRequest) -> Path:
    path = request.getfixturevalue("tmp_path") / "store"
    extract_features(DemoTeacher(), scenes_dataset(train=1, val=1, test=0), path)
    return path


def made(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Any]:
    """What the door is given for a kind of model, and the model as it is made without the door."""
    match kind:
        case "run folder":
            folder = request.getfixturevalue("student")
            return folder.parent, SentenceTransformerTeacher(str(folder))
        case "student folder":
            folder = request.getfixturevalue("student")
            return folder, SentenceTransformerTeacher(str(folder))
        case "open SentenceTransformer":
            opened = load_student(request.getfixturevalue("student"))
            return opened, SentenceTransformerTeacher(opened)
        case "exported folder" | "open Runtime":
            folder = request.getfixturevalue("exported")
            return (folder if kind == "exported folder" else Runtime.load(folder)), Runtime.load(folder)
        case "dual encoder of transformers":
            folder = dual_encoder(request)
            return f"{folder}?device=cpu", TransformersTeacher(str(folder))
        case "open_clip":
            request.getfixturevalue("calls")
            return "open_clip:ViT-B-32/openai", OpenClipTeacher("ViT-B-32", "openai")
        case "BEiT-3":
            checkpoint, vocabulary = beit3(request)
            shutil.copy(checkpoint, vocabulary.parent / checkpoint.name)
            return f"beit3:{vocabulary.parent}", Beit3Teacher(checkpoint, vocabulary)
        case "behind an API":
            spec = http_spec(request.getfixturevalue("server").url)
            return spec, HttpTeacher.from_spec(spec)
        case "class in a file":
            return f"{COLOUR_FILE}:ColourTeacher", ColourTeacher()
        case "kind of a package":
            install(request.getfixturevalue("monkeypatch"), FakeDistribution("theirs", "theirs = their_package:Ones"))
            sys.modules["their_package"].Ones = lambda rest: Ours()  # type: ignore[attr-defined]
            return "theirs:model", Ours()
        case "open model":
            return Ours(), Ours()
        case "demo":
            return "demo", DemoTeacher()
    raise AssertionError(kind)


KINDS = [
    "run folder", "student folder", "open SentenceTransformer", "exported folder", "open Runtime",
    "dual encoder of transformers", "open_clip", "BEiT-3", "behind an API", "class in a file", "kind of a package",
    "open model", "demo",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_through_the_one_door(kind: str, request: pytest.FixtureRequest) -> None:
    source, itself = made(request, kind)
    model, encoder = load_model(source), load_encoder(source)
    assert isinstance(model, Teacher)
    assert (model.name, model.revision, model.dim) == (encoder.name, encoder.revision, encoder.dim)
    assert (model.revision, model.dim) == (itself.revision, itself.dim)
    for items, method in ((IMAGES, "encode_images"), (TEXTS, "encode_texts")):
        expected = np.asarray(getattr(itself, method)(items), dtype=np.float32)
        np.testing.assert_allclose(getattr(model, method)(items), expected, atol=1e-6)
        embeddings = getattr(encoder, method)(items)
        assert embeddings.shape == (1, model.dim)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(embeddings, expected / np.linalg.norm(expected), atol=1e-6)
    if "open model" not in kind and kind != "class in a file" and kind != "kind of a package":
        assert f"dim={model.dim}" in repr(model)
        assert repr(encoder) == f"Encoder({model!r})"


@pytest.mark.parametrize("kind", ["folder", "mean", "concat", "open"])
def test_a_feature_store_will_do_where_embeddings_are_enough(kind: str, request: pytest.FixtureRequest) -> None:
    path = store(request)
    source = {"folder": path, "open": FeatureStore.open(path)}.get(kind, f"{kind}:{path},{path}")
    model = load_model(source, stored=True)
    assert isinstance(model, StoredModel)
    assert model.dim == (256 if kind == "concat" else 128)
    assert "StoredModel" in repr(model)
    for encode in (lambda: model.encode_images(IMAGES), lambda: model.encode_texts(TEXTS)):
        with pytest.raises(DistilvlError, match="is a feature store, which knows only the items that it holds"):
            encode()
    for load in (load_model, load_teacher, load_encoder):
        with pytest.raises(DistilvlError, match=r"is a feature store, .* encodes nothing"):
            load(source)


def test_a_run_without_a_student_is_named_by_every_door(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: demo\n")
    for load in (load_model, load_teacher, load_encoder, load_student):
        with pytest.raises(DistilvlError, match="has no finished student yet"):
            load(tmp_path)


def test_a_package_that_apis_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilvl.models.loading.find_spec", lambda _: None)
    with pytest.raises(DistilvlError, match=r"need httpx2 and tenacity. Run: pip install 'distilvl\[api\]'"):
        load_model("openai+https://host/v1?model=m&dim=3")


def test_a_class_is_no_open_model() -> None:
    with pytest.raises(DistilvlError, match=r"Ours is a class, not a teacher. Give Ours\(\)"):
        load_model(Ours)


def test_a_run_in_a_folder_called_demo_is_not_taken_for_the_built_in_teacher(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    assert isinstance(load_model("demo"), DemoTeacher)  # a folder of pictures, say, is no model
    assert load_encoder("demo").info.spec == "demo"
    shutil.copytree(student.parent, "demo", dirs_exist_ok=True)
    for source in ("demo", Path("demo"), "./demo"):
        assert load_model(source).dim == load_encoder(source).dim == 12
    assert load_encoder("demo").info.spec == str(tmp_path / "demo")
    assert isinstance(load_teacher("demo"), DemoTeacher)  # as `--teacher demo` says


def test_the_folder_of_a_model_is_told_without_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, plain = tmp_path / "run", tmp_path / "plain"
    (run / "student").mkdir(parents=True)
    (run / "config.yaml").touch()
    plain.mkdir()
    assert model_folder(run) == run / "student"
    assert model_folder(f"{plain}?precision=int8") == plain
    assert model_folder("demo") is model_folder("openai+https://host/v1") is model_folder("mean:a,b") is None
    monkeypatch.chdir(tmp_path)
    run.rename("demo")
    assert model_folder("demo") == Path("demo", "student")
