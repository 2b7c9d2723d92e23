"""Losses and balancers by name: those of this package, and those that installed packages add by an entry point."""

import difflib
import importlib
import pkgutil
import sys
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from distilvl.errors import DistilvlError

T = TypeVar("T")


class Settings(BaseModel):
    """What a recipe may set of a loss or a balancer; without fields, nothing. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Registry(Generic[T]):
    """The subclasses of `base`, each by the `name` that it gives itself; `kind` is what messages call them.

    They are found in all modules under `package`, and in the entry points `group` of installed packages, each named
    as its class names itself. The names `first` are listed before the others.
    """

    def __init__(self, kind: str, base: type[T], package: str, group: str, first: tuple[str, ...] = ()) -> None:
        self.kind, self.base, self.package, self.group, self.first = kind, base, package, group, first

    @cached_property
    def shipped(self) -> dict[str, type[T]]:
        """Those of this package, by name."""
        root = importlib.import_module(self.package)
        names = [module.name for module in pkgutil.walk_packages(root.__path__, f"{self.package}.")]
        found: dict[str, type[T]] = {}
        for module in map(importlib.import_module, names):
            for value in vars(module).values():
                if isinstance(value, type) and issubclass(value, self.base) and value.__module__ == module.__name__:
                    name = getattr(value, "name", "")
                    if name and found.setdefault(name, value) is not value:
                        raise TypeError(f"{value} and {found[name]} are both named {name}")
        return {name: found[name] for name in (*self.first, *sorted(set(found) - set(self.first)))}

    def names(self) -> list[str]:
        """All names there are; a package's class is not loaded for this."""
        return list(dict.fromkeys([*self.shipped, *self.added()]))

    def added(self) -> list[str]:
        """The names that installed packages add."""
        return sorted(point.name for point in self._points())

    def uncontested(self) -> list[str]:
        """The names of this package that no other package claims as well."""
        return [name for name in self.shipped if name not in self.added()]

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name; `DistilvlError` where there is none, several offer it, or its package is broken."""
        points = [point for point in self._points() if point.name == name]
        offering = [*["distilvl"] * (name in self.shipped), *sorted({_package(point) for point in points})]
        if not offering:
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            remedy = f"{hint}Choose from {', '.join(self.names())}, or install the package that adds it."
            raise DistilvlError(f"there is no {self.kind} named {name!r}.", remedy)
        if len(offering) > 1:
            remedy = f"Uninstall {offering[-1]}, or rename its {self.kind}."
            raise DistilvlError(f"the {self.kind} {name!r} is offered by {' and '.join(offering)}.", remedy)
        return self._loaded(points[0]) if points else self.shipped[name]

    def _points(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.group, tuple(sys.path))

    def _loaded(self, point: EntryPoint) -> type[T]:
        package, what = _package(point), f"the {self.kind} {point.name!r} of the package {_package(point)}"
        try:
            found: Any = point.load()
        # Anything at all can go wrong in a package that is not ours; its traceback stays attached as the cause.
        except Exception as error:
            remedy = f"Ask those who maintain {package}."
            raise DistilvlError(f"{what} cannot be loaded: {type(error).__name__}: {error}.", remedy) from error
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise DistilvlError(f"{what} is no subclass of {self.base.__name__}.", f"Correct {point.value}.")
        if getattr(found, "name", "") != point.name:
            remedy = "Give class and entry point the same name."
            raise DistilvlError(f"{what} calls itself {getattr(found, 'name', '')!r}.", remedy)
        return found


@lru_cache(maxsize=8)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001
    """Those of the packages on `path`, which is the search path of now; reading them takes milliseconds."""
    return tuple(entry_points(group=group))


def _package(point: EntryPoint) -> str:
    return point.value if point.dist is None else str(point.dist.name)
