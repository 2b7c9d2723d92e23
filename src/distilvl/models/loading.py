"""The one door to every model; PyTorch, and every kind of model, is imported only when it is needed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.features.ensemble import is_ensemble
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.features.store import FeatureStore
from distilvl.io.hub import like_it, look_for_hub, may_be_had
from distilvl.io.specs import Spec, parse_spec
from distilvl.models.encoder import Encoder
from distilvl.runtime import Runtime, is_export
from distilvl.students.folder import student_folder
from distilvl.teachers.base import ACCEPTED_TEACHERS, Teacher
from distilvl.teachers.checks import checked

if TYPE_CHECKING:
    from distilvl.teachers.torch_teacher import RunOptions

_HTTP = re.compile(r"[a-z0-9]+\+https?://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_KINDS = ("beit3", "open_clip")
DEMO = "demo"


class StoredModel:
    """A feature store in the place of a model: it has the embeddings of its items, and encodes nothing."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.name, self.revision, self.dim = store.manifest.teacher, store.manifest.revision, store.manifest.dim

    def __repr__(self) -> str:
        return f"StoredModel({str(self.store.path)!r} of {self.name!r}, dim={self.dim})"

    def encode_images(self, _: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """Raises `DistilvlError`."""
        raise _no_model(self.store.path, "cannot encode images")

    def encode_texts(self, _: Sequence[str]) -> npt.NDArray[Any]:
        """Raises `DistilvlError`."""
        raise _no_model(self.store.path, "cannot encode texts")


def load_model(source: object, *, stored: bool = False) -> Teacher:
    """The model that `source` names or is; its embeddings are as it gives them, of any length.

    Args:
        source: an open model (a SentenceTransformer, a `Runtime`, any object with the surface of `Teacher`), or one of
            a run folder (its finished student), a student's folder, a folder that `distilvl export` wrote (needs no
            PyTorch; `FOLDER?precision=fp32` chooses a dtype);
            the folder or hub id of a dual encoder of transformers or of a SentenceTransformer of images and text;
            `beit3:base:CHECKPOINT:VOCABULARY` or `beit3:FOLDER`; `open_clip:MODEL/WEIGHTS`;
            `openai+https://...`, behind an API; `demo`, the built-in teacher, unless a model's folder is so called;
            `path/to/file.py:Class`, made without arguments; `KIND:REST` of an installed package (`distilvl.teachers`).
            Those that run in PyTorch here may end in `?device=...&dtype=...&batch_size=...`.
        stored: whether embeddings are enough: then a feature store, or `mean:A,B` or `concat:A,B` of several, will do,
            and comes as a `StoredModel`.

    Raises:
        DistilvlError: it cannot be found or loaded, is a run that is not finished, or does not encode images and texts.
    """
    if isinstance(source, str | Path):
        return _named(_text(source), stored)
    if isinstance(source, FeatureStore):
        return _stored(source, stored)
    library = sys.modules.get("sentence_transformers")
    if library is not None and isinstance(source, library.SentenceTransformer):
        from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher

        return SentenceTransformerTeacher(source)
    if not hasattr(source, "encode_images"):
        what = f"a model is open, or named by a text, not by a {type(source).__name__}."
        raise DistilvlError(what, ACCEPTED_TEACHERS)
    return checked(source)


def load_teacher(source: object) -> Teacher:
    """`load_model` for what encodes items that no store holds yet; `demo` is the built-in one, whatever lies here."""
    return _named(source, False) if isinstance(source, str) else load_model(source)


def load_encoder(source: object) -> Encoder:
    """`load_model`, with L2-normalised float32 embeddings; it remembers the place of a folder for good."""
    text = _text(source) if isinstance(source, str | Path) else ""
    place = None if text == DEMO else _place(text)
    return Encoder(load_model(source), text if place is None else f"{Path(place).resolve()}{text[len(place) :]}")


def is_stored(spec: str | Path) -> bool:
    """Whether `spec` is a feature store's folder, or `mean:` or `concat:` of several."""
    return is_ensemble(spec) or (Path(spec, MANIFEST_NAME).is_file() and not is_export(spec))


def model_folder(spec: str | Path) -> Path | None:
    """The student's, exported or other model's folder that `spec` names, a run's being its student's; none if none."""
    text = _text(spec)
    place = None if text == DEMO else _place(text)
    return None if place is None else student_folder(place)


def _text(source: str | Path) -> str:
    """`source` as text, so that a model's folder called demo, such as a run, is not taken for the built-in teacher."""
    here = any(Path(DEMO, name).is_file() for name in ("modules.json", "config.yaml", "config.json", MANIFEST_NAME))
    return f"./{DEMO}" if str(source) == DEMO and here else str(source)


def _named(text: str, stored: bool) -> Teacher:
    if is_stored(text):
        return _stored(text, stored)
    if _HTTP.match(text):
        missing = " and ".join(name for name in ("httpx2", "tenacity") if find_spec(name) is None)
        if missing:
            raise DistilvlError(f"teachers behind an API need {missing}.", "Run: pip install 'distilvl[api]'")
        from distilvl.teachers.http import HttpTeacher

        return HttpTeacher.from_spec(text)
    file, _, class_name = text.rpartition(":")
    if file.endswith(".py"):
        from distilvl.teachers.third_party import teacher_from_file

        return teacher_from_file(Path(file), class_name)
    if text.endswith(".py"):
        raise DistilvlError(f"the teacher {text!r} names no class.", "Write path/to/file.py:Class.")
    if text == DEMO:
        from distilvl.teachers.demo_network import DemoTeacher

        return DemoTeacher()
    spec = parse_spec(f"{text}:" if text in _KINDS else text, _KINDS, "teacher")
    if spec.kind == "beit3":
        from distilvl.teachers.beit3 import Beit3Teacher

        return Beit3Teacher.from_spec(spec.place, _run_options(spec))
    if spec.kind:
        from distilvl.teachers.open_clip import OpenClipTeacher

        return OpenClipTeacher.from_spec(spec.place, _run_options(spec))
    if (place := _place(text)) is not None:
        return _in_folder(Path(place), spec if place == spec.place else Spec("", text))
    from distilvl.teachers.third_party import third_party_teacher

    if text and (teacher := third_party_teacher(text)) is not None:
        return teacher
    if not _HUB_ID.fullmatch(spec.place):
        what = f"there is no teacher {text!r}, and it is not a student folder."
        raise DistilvlError(what, f"{like_it(spec.place)} {ACCEPTED_TEACHERS}".strip())
    look_for_hub()
    if not may_be_had(spec.place):
        what = f"the teacher {spec.place!r} is no folder here and cannot be fetched from the hub: it is not reached."
        raise DistilvlError(what, f"{like_it(spec.place)} {ACCEPTED_TEACHERS}".strip())
    return _of_libraries(spec.place, _run_options(spec))


def _place(text: str) -> str | None:
    """The part of `text` that is a folder: all of it, or what stands before its options; none without a folder."""
    return next((place for place in (text, parse_spec(text).place) if place and Path(place).is_dir()), None)


def _in_folder(folder: Path, spec: Spec) -> Teacher:
    if is_export(folder):
        spec.require(("precision",))
        # Others decode pictures or answer requests while it encodes.
        return Runtime.load(folder, precision=spec.one("precision") or None, busy_wait=False)
    if is_stored(folder):
        return _stored(folder, False)
    return _of_libraries(str(student_folder(folder)), _run_options(spec))


def _of_libraries(source: str, options: RunOptions) -> Teacher:
    from distilvl.teachers.transformers_model import TransformersTeacher, is_dual_encoder

    if is_dual_encoder(source):
        return TransformersTeacher(source, options)
    from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher

    return SentenceTransformerTeacher(source, options)


def _run_options(spec: Spec) -> RunOptions:
    from distilvl.teachers.torch_teacher import RunOptions

    return RunOptions.of(spec)


def _stored(source: FeatureStore | str | Path, wanted: bool) -> StoredModel:
    if not wanted:
        raise _no_model(source.path if isinstance(source, FeatureStore) else source, "encodes nothing")
    return StoredModel(source if isinstance(source, FeatureStore) else FeatureStore.open(source))


def _no_model(place: str | Path, lacks: str) -> DistilvlError:
    what = f"{place} is a feature store, which knows only the items that it holds and {lacks}."
    return DistilvlError(what, "Give a run, a student's folder, an exported folder, or a teacher.")
