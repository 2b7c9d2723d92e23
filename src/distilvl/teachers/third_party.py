"""Kinds of teachers that other packages bring, through the entry point group `distilvl.teachers`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from distilvl.errors import DistilvlError
from distilvl.teachers.ask import said
from distilvl.teachers.base import Teacher
from distilvl.teachers.checked import checked

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
