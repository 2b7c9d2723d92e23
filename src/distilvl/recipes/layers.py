"""How a recipe, what it extends and overrides become one tree: what wins, what is renamed, and what a choice unsets."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, reduce
from operator import getitem
from typing import Any

import yaml

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_texts
from distilvl.objectives.config import Variants, model_of

logger = logging.getLogger("distilvl")

Tree = dict[str, Any]
Override = tuple[tuple[str, ...], Any]  # `("training", "epochs"), 3`

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
    for section, kind in variants().items():
        tree = {**tree, section: _used(tree[section], kind, kind.variant(tree[section]))}
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

    Where a key that chooses (`balancer.name`, `schedule.kind`, `objective.losses`) is set, the settings of what it does
    not choose are left out of the layers below and of the shared overrides. Those beside or above it stay, to be told.
    """
    draft = _over(layers, [*shared, *own])
    layers, shared = list(layers), list(shared)
    for section, kind in variants().items():
        if not isinstance(draft.get(section), dict):
            continue
        variant = kind.variant(draft[section])
        chosen_above = any(path in ((section,), (section, kind.chosen_by)) for path, _ in [*shared, *own])
        for k in reversed(range(len(layers))):
            held = layers[k].get(section)
            if chosen_above and isinstance(held, dict):
                layers[k] = {**layers[k], section: _used(held, kind, variant)}
            chosen_above = chosen_above or (isinstance(held, dict) and kind.chosen_by in held)
        shared = [each for each in shared if each[0][0] != section or _is_used(each, kind, variant)]
    return _over(layers, [*shared, *own])


def variants() -> dict[str, type[Variants]]:
    """The sections whose keys depend on one of them."""
    models = {name: model_of(field) for name, field in Config.model_fields.items()}
    return {name: model for name, model in models.items() if model and issubclass(model, Variants)}


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


def _is_used(override: Override, kind: type[Variants], variant: Any) -> bool:
    (section, *path), value = override
    alone: Tree = {section: {}}
    put(alone, (section, *path), value)
    return not path or _used(alone[section], kind, variant) == alone[section]
