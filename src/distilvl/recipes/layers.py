"""How a recipe, what it extends and overrides become one tree: what wins, what is renamed, and what a choice unsets."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, reduce
from operator import getitem
from typing import Any

import yaml
from pydantic import BaseModel

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_texts
from distilvl.objectives.config import Variants, model_of

logger = logging.getLogger("distilvl")

Tree = dict[str, Any]
Path = tuple[str, ...]
Override = tuple[Path, Any]  # `("training", "epochs"), 3`

RENAMED: dict[str, tuple[str, dict[str, str]]] = {
    "training.accumulate": ("training.gradcache_chunks", {}),
    "training.head_start": ("training.head_init", {"regression": "ridge"}),
    "training.views": ("training.crops", {}),
    "student.width": ("student.dim", {}),
    "objective.widths": ("objective.dims", {}),
}
"""Keys of version 0.1.0: what they are called now, and values that are called otherwise."""

SAVED_SECTIONS = {"inputs", "student", "objective", "balancer", "optimizer", "schedule", "training"}


def renamed(tree: Tree, source: str) -> Tree:
    """`tree` with the names that keys have now; an old one is told on stderr, both names of one key are an error."""
    tree, quiet = copy.deepcopy(tree), is_saved_by_0_1(tree)
    for old, (new, values) in RENAMED.items():
        (section, old_key), new_key = old.split("."), new.split(".")[1]
        held = tree.get(section)
        if isinstance(held, dict) and old_key in held:
            if new_key in held:
                raise _twice(old, new, source)
            value = held.pop(old_key)
            held[new_key] = values.get(value, value) if isinstance(value, str) else value
            if not quiet:
                _tell_once(f"{old} in {source} is called {new} now; write {new_key}: {held[new_key]}")
    return tree


_tell_once = cache(logger.warning)  # a process: all cells of a table read the same overrides


def _twice(one: str, other: str, source: str) -> DistilvlError:
    both = f"{source} says both {one} and {other}, two names of one setting."
    return DistilvlError(both, f"Keep {RENAMED.get(one, (one,))[0]}.")


def is_saved_by_0_1(tree: Tree) -> bool:
    """Whether this is the `config.yaml` of a run of version 0.1.0: all sections, under the names of that time."""
    sections = [tree.get(section) for section in ("training", "student", "objective")]
    if not set(tree) >= SAVED_SECTIONS or not all(isinstance(section, dict) for section in sections):
        return False
    return not any(new.split(".")[1] in (tree[new.split(".")[0]] or {}) for new, _ in RENAMED.values())


def as_saved_now(tree: Tree) -> Tree:
    """A config saved by version 0.1.0 without the settings that its run did not read: it names those of everything."""
    for path, kind in variants().items():
        held = _at(tree, path)
        if isinstance(held, dict):
            tree = _with(tree, path, _used(held, kind, kind.variant(held)))
    return tree


def read_overrides(overrides: Sequence[str]) -> list[Override]:
    """`section.key=value` items, by the names that keys have now."""
    found: list[Override] = []
    seen: dict[tuple[str, ...], str] = {}
    for item in list_of_texts(overrides):
        dotted, equals, raw = (part.strip() for part in item.partition("="))
        if not equals or not dotted:
            raise DistilvlError(f"--set {item!r} is not key=value.", "Write it like --set balancer.tau=0.5")
        path = tuple(dotted.split("."))
        key = ".".join(path[:2])
        path = (*RENAMED.get(key, (key,))[0].split("."), *path[2:])
        if seen.setdefault(path, dotted) != dotted:
            raise _twice(seen[path], dotted, "--set")
        tree: Tree = {}
        put(tree, tuple(dotted.split(".")), _parse_value(raw))
        found.append((path, reduce(getitem, path, renamed(tree, "--set"))))
    return found


def _parse_value(raw: str) -> Any:
    """YAML, with the floats that YAML 1.1 takes for text (`1e-3`) read as floats."""
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise DistilvlError(f"--set value {raw!r} is not valid YAML.", "Quote text that holds : or [.") from error
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def put(tree: Tree, path: tuple[str, ...], value: Any) -> None:
    """Set the value at `path`, in place; sections on the way are made."""
    for part in path[:-1]:
        if not isinstance(tree.get(part), dict):
            tree[part] = {}
        tree = tree[part]
    tree[path[-1]] = value


def together(layers: Sequence[Tree], shared: Sequence[Override] = (), own: Sequence[Override] = ()) -> Tree:
    """Each layer over the one before it, and the overrides over all, without what a later choice unsets.

    Where a key that chooses (`balancer.name`, `objective.losses`, `student.text.kind`) is set, the settings of what it
    does not choose are left out of the layers below and of the shared overrides. Those beside or above it stay, to be
    told.
    """
    draft = _over(layers, [*shared, *own])
    layers, shared = list(layers), list(shared)
    for section, kind in variants().items():
        chosen = _at(draft, section)
        if not isinstance(chosen, dict):
            continue
        variant, by = kind.variant(chosen), (*section, kind.chosen_by)
        # A section may be set as a whole, too, and so may one that holds it.
        chosen_above = any(path == by or path == section[: len(path)] for path, _ in [*shared, *own])
        for k in reversed(range(len(layers))):
            held = _at(layers[k], section)
            if chosen_above and isinstance(held, dict):
                # What the layers below chose is looked at only where it counts: it may be a loss that is broken.
                below = variant if kind.carries_over else kind.variant(_at(_over(layers[: k + 1], ()), section))
                kept = variant if below is variant else kind
                layers[k] = _with(layers[k], section, _used(held, kind, kept))
            chosen_above = chosen_above or (isinstance(held, dict) and kind.chosen_by in held)
        shared = [each for each in shared if _is_used(each, section, kind, variant)]
    return _over(layers, [*shared, *own])


@cache
def variants() -> dict[Path, type[Variants]]:
    """The sections whose keys depend on one of them, by their path: `("balancer",)`, `("student", "text")`."""
    return dict(_variants_in(Config))


def _variants_in(model: type[BaseModel], *above: str) -> Iterator[tuple[Path, type[Variants]]]:
    for name, field in model.model_fields.items():
        inner = model_of(field)
        if inner is not None and issubclass(inner, Variants):
            yield (*above, name), inner
        elif inner is not None:
            yield from _variants_in(inner, *above, name)


def _at(tree: Any, path: Path) -> Any:
    """What stands at `path`; none where nothing does."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _with(tree: Tree, path: Path, value: Any) -> Tree:
    """A copy of `tree` with another value at `path`, whose sections are there."""
    name, *rest = path
    return {**tree, name: _with(tree[name], tuple(rest), value) if rest else value}


def _over(layers: Sequence[Tree], overrides: Sequence[Override]) -> Tree:
    empty: Tree = {}
    tree = reduce(_merged, copy.deepcopy(list(layers)), empty)
    for path, value in overrides:
        put(tree, path, value)
    return tree


def _merged(base: Tree, top: Tree) -> Tree:
    """`top` over `base`; sections are merged key by key, everything else is replaced."""
    out = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out


def _used(held: Tree, kind: type[Variants], variant: Any, *above: str) -> Tree:
    """A section without what belongs to other variants; unknown keys stay, to be told."""
    out = {}
    for key, value in held.items():
        field = variant.model_fields.get(key)
        if field is None and kind.owners(*above, key):
            continue
        inner = model_of(field)
        out[key] = _used(value, kind, inner, *above, key) if inner and isinstance(value, dict) else value
    return out


def _is_used(override: Override, section: Path, kind: type[Variants], variant: Any) -> bool:
    """Whether the override is of another section, or of a setting that this section has."""
    path, value = override
    if len(path) <= len(section) or path[: len(section)] != section:
        return True
    alone: Tree = {}
    put(alone, path[len(section) :], value)
    return _used(alone, kind, variant) == alone


def settings_of(overrides: Sequence[str] | Mapping[str, Any], prefix: str = "") -> Sequence[str]:
    """`section.key=value` items; of a dict, nested or with such keys, what it says."""
    if not isinstance(overrides, Mapping):
        return overrides
    items: list[str] = []
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            items += settings_of(value, f"{prefix}{key}.")
            continue
        try:
            text = yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()
        except yaml.YAMLError as error:
            remedy = "Give numbers, texts, lists, dicts or None."
            raise DistilvlError(f"the override {prefix}{key} is of the type {type(value).__name__}.", remedy) from error
        items.append(f"{prefix}{key}={text}")
    return items
