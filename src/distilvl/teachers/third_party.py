"""Teachers that others wrote: a class in a Python file, or a kind that an installed package offers."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from distilvl.errors import DistilvlError
from distilvl.teachers.base import Teacher, loading
from distilvl.teachers.checks import checked

GROUP = "distilvl.teachers"  # the entry point group in which a package offers its kinds of teachers


def teacher_from_file(path: Path, class_name: str) -> Teacher:
    """Run the Python file `path`, which the user named for this, and make one `class_name()` of it.

    Modules that lie beside the file can be imported by it. `DistilvlError` if that fails, or it is no teacher.
    """
    spec = f"{path}:{class_name}"
    if not path.is_file():
        raise DistilvlError(f"the teacher's file {path} does not exist.", "Check the path before ':' in --teacher.")
    with _importing(spec, path.resolve().parent):
        module = _module(path)
        maker = getattr(module, class_name, None)
        if not callable(maker):
            kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
            own = [name for name, kind in kinds.items() if kind.__module__ == module.__name__]
            classes = ", ".join(name for name in own if not name.startswith("_"))
            raise DistilvlError(f"{path} has no class {class_name!r}.", f"Its classes are: {classes or 'none'}.")
        _require_no_arguments(maker, spec)
        teacher: object = maker()
    return checked(teacher, spec)


@contextmanager
def _importing(spec: str, folder: Path) -> Iterator[None]:
    """Make `folder` importable for a while, and turn what the user's code raises into one line."""
    sys.path.insert(0, str(folder))
    try:
        with loading(f"the teacher {spec} cannot be loaded", "Fix that file, then run the command again.", None):
            try:
                yield
            except ModuleNotFoundError as error:
                what = f"the teacher {spec} needs the package {error.name!r}, which is not installed."
                package = str(error.name).split(".")[0].replace("_", "-")
                raise DistilvlError(what, f"Install it (for instance: pip install {package}).") from error
    finally:
        sys.path.remove(str(folder))


def _require_no_arguments(maker: Callable[..., object], spec: str) -> None:
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # a class that does not tell
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in variable]
    if needed:
        remedy = "Give them defaults, or name a function in that file that takes none and returns the teacher."
        what = f"the teacher {spec} needs the arguments {', '.join(needed)}, and is made without any."
        raise DistilvlError(what, remedy)


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


def third_party_teacher(spec: str) -> Teacher | None:
    """The teacher of an installed package for `KIND:REST`, or None when no package offers KIND.

    The entry point is a function or class; it is called with REST (empty for a bare KIND). `DistilvlError` if two
    packages offer KIND, it fails, or what it returns is no teacher.
    """
    kind, _, rest = spec.partition(":")
    found = tuple(entry_points(group=GROUP, name=kind))
    if not found:
        return None
    packages = sorted({_package(point) for point in found})
    if len(packages) > 1:
        what = f"the kind of teacher {kind!r} is offered by {' and '.join(packages)}."
        raise DistilvlError(what, "Uninstall all but one of them.")
    what = f"the teacher {spec} of the package {packages[0]} cannot be loaded"
    with loading(what, f"Ask those who maintain {packages[0]}.", None):
        teacher = found[0].load()(rest)
    return checked(teacher, spec)


def _package(point: EntryPoint) -> str:
    return point.value if point.dist is None else str(point.dist.name)
