"""A teacher that the user wrote: a class in a Python file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from distilvl.errors import DistilvlError
from distilvl.teachers.base import Teacher

_PROTOCOL = "A teacher has name, revision, dim, encode_images(images) and encode_texts(texts)."


def teacher_from_file(path: Path, class_name: str) -> Teacher:
    """Run the Python file `path`, which the user named for this, and make one `class_name()` of it.

    Modules that lie beside the file can be imported by it.

    Raises:
        DistilvlError: no such file or class, a package it needs is not installed, it fails, or it is no
            teacher.
    """
    spec = f"{path}:{class_name}"
    if not path.is_file():
        raise DistilvlError(f"the teacher's file {path} does not exist.", "Check the path before ':' in --teacher.")
    with _importing(spec, path.resolve().parent):
        module = _module(path)
        maker = getattr(module, class_name, None)
        if not callable(maker):
            classes = [name for name, kind in vars(module).items() if _is_own_class(kind, module)]
            raise DistilvlError(
                f"{path} has no class {class_name!r}.", f"Its classes are: {', '.join(classes) or 'none'}."
            )
        teacher: object = maker()
    return checked(teacher, spec)


def checked(teacher: object, spec: str) -> Teacher:
    """`teacher`, when it keeps the `Teacher` protocol; `DistilvlError` naming what is wrong otherwise."""
    for method in ("encode_images", "encode_texts"):
        if not callable(getattr(teacher, method, None)):
            raise DistilvlError(f"{spec} is not a teacher: it has no method {method!r}.", _PROTOCOL)
    for attribute, kind in (("name", str), ("revision", str), ("dim", int)):
        value = getattr(teacher, attribute, None)
        if not isinstance(value, kind) or not value:
            raise DistilvlError(
                f"{spec} is not a teacher: its {attribute!r} is {value!r}, not {kind.__name__}.", _PROTOCOL
            )
    if not isinstance(teacher, Teacher) or teacher.dim < 1:
        raise DistilvlError(f"{spec} is not a teacher.", _PROTOCOL)
    return teacher


@contextmanager
def _importing(spec: str, folder: Path) -> Iterator[None]:
    """Make `folder` importable for a while, and turn what the user's code raises into one line."""
    sys.path.insert(0, str(folder))
    try:
        yield
    except DistilvlError:
        raise
    except ModuleNotFoundError as error:
        raise DistilvlError(
            f"the teacher {spec} needs the package {error.name!r}, which is not installed.",
            f"Install it (for instance: pip install {str(error.name).split('.')[0].replace('_', '-')}).",
        ) from error
    # Anything at all can go wrong in a file that is not ours; its traceback stays attached as the cause.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DistilvlError(
            f"the teacher {spec} cannot be loaded: {type(error).__name__}: {reason}.",
            "Fix that file, then run the command again.",
        ) from error
    finally:
        sys.path.remove(str(folder))


def _module(path: Path) -> ModuleType:
    # The name is the path's own, so that two files called teacher.py do not become one module.
    name = f"distilvl_teacher_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DistilvlError(f"{path} cannot be imported.", "Name a Python file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_own_class(kind: object, module: ModuleType) -> bool:
    return isinstance(kind, type) and kind.__module__ == module.__name__ and not kind.__name__.startswith("_")
