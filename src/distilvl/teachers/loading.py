"""`load_teacher`: one door to all kinds of teachers, those of other packages too (entry points `distilvl.teachers`)."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.teachers.base import ACCEPTED_TEACHERS, Teacher
from distilvl.teachers.checks import checked
from distilvl.teachers.outputs import said

GROUP = "distilvl.teachers"


def third_party_teacher(spec: str) -> Teacher | None:
    """The teacher of an installed package for `KIND:REST`, or None when no package offers KIND.

    The entry point is a function or class; it is called with REST (empty for a bare KIND).

    Raises:
        DistilvlError: two packages offer KIND, it fails, or what it returns is no teacher.
    """
    kind, _, rest = spec.partition(":")
    found = tuple(entry_points(group=GROUP, name=kind))
    if not found:
        return None
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        raise DistilvlError(
            f"the kind of teacher {kind!r} is offered by {' and '.join(packages)}.", "Uninstall all but one of them."
        )
    return checked(_made(found[0], rest, spec), spec)


def third_party_kinds() -> list[str]:
    """Names of all kinds that installed packages offer."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def _made(point: EntryPoint, rest: str, spec: str) -> object:
    try:
        return point.load()(rest)
    except DistilvlError:
        raise
    # Anything at all can go wrong in a package that is not ours; its traceback stays attached as the cause.
    except Exception as error:
        raise DistilvlError(
            f"the teacher {spec} of the package {_package(point)} cannot be loaded: {said(error)}.",
            f"Ask those who maintain {_package(point)}.",
        ) from error


def _package(point: EntryPoint) -> str:
    return point.value if point.dist is None else str(point.dist.name)


_HTTP = re.compile(r"[a-z0-9]+\+https?://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_teacher(spec: str | Path) -> Teacher:
    """The teacher that `spec` names.

    Args:
        spec: one of
            `demo`, the built-in teacher of the `scenes` world;
            `path/to/file.py:Class`, a class that is made without arguments;
            the folder that `distilvl export` wrote, or `FOLDER?precision=fp32` for one of its precisions;
            the folder or hub id of a dual encoder of transformers or of a SentenceTransformer of images and text;
            `beit3:base:CHECKPOINT:VOCABULARY` or `beit3:FOLDER`;
            `open_clip:MODEL/WEIGHTS`;
            `openai+https://...`, a model behind an API;
            `KIND:REST` of an installed package (entry point group `distilvl.teachers`).
            Those that run here may end in `?device=...&dtype=...&batch_size=...`.

    Raises:
        DistilvlError: it cannot be found or loaded, or is not a teacher of images and text.
    """
    if not isinstance(spec, str | Path):
        raise DistilvlError(f"a teacher is named by a text, not by a {type(spec).__name__}.", ACCEPTED_TEACHERS)
    spec = str(spec)
    if _HTTP.match(spec):
        from distilvl.teachers.http import HttpTeacher

        return HttpTeacher.from_spec(spec)
    file, _, name = spec.rpartition(":")
    if file.endswith(".py"):
        from distilvl.teachers.python_file import teacher_from_file

        return teacher_from_file(Path(file), name)
    if spec.endswith(".py"):
        raise DistilvlError(f"the teacher {spec!r} names no class.", "Write path/to/file.py:Class.")
    if (named := _named(spec)) is not None:
        return named
    from distilvl.teachers.sentence_transformer import exported_teacher

    return exported_teacher(spec) or _from_folder_or_hub(spec)


def _named(spec: str) -> Teacher | None:
    """The teacher of a spec that begins with the name of a kind."""

    kind, _, rest = spec.partition(":")
    if spec == "demo":
        from distilvl.teachers.demo_network import DemoTeacher

        return DemoTeacher()
    if kind == "beit3":
        from distilvl.teachers.beit3 import Beit3Teacher
        from distilvl.teachers.torch_teacher import split_options

        return Beit3Teacher.from_spec(*split_options(rest))
    if kind == "open_clip":
        from distilvl.teachers.open_clip import OpenClipTeacher
        from distilvl.teachers.torch_teacher import split_options

        return OpenClipTeacher.from_spec(*split_options(rest))
    # A folder that bears the name of a package's kind stays what it is.
    return None if not kind or Path(spec).is_dir() else third_party_teacher(spec)


def _from_folder_or_hub(spec: str) -> Teacher:
    from distilvl.teachers.torch_teacher import split_options

    source, options = split_options(spec)
    if not source or not (Path(source).is_dir() or _HUB_ID.fullmatch(source)):
        raise DistilvlError(f"there is no teacher {spec!r}.", ACCEPTED_TEACHERS)
    from distilvl.teachers.transformers_model import TransformersTeacher, is_dual_encoder

    if is_dual_encoder(source):
        return TransformersTeacher(source, options)
    from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher

    return SentenceTransformerTeacher(source, options)
