"""Recipes (training) and presets (students) as YAML, and the code that reads, overrides and checks them."""

import difflib
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from distilvl.config import Config, FitConfig, RunConfig
from distilvl.config.student import OF_TRAINING
from distilvl.errors import DistilvlError
from distilvl.objectives.config import Variants, model_of
from distilvl.recipes import layers as layers_of
from distilvl.recipes.layers import Tree, put, read_overrides, renamed

RECIPES = Path(__file__).parent
STUDENTS = RECIPES / "students"
DEFAULT_STUDENT, FIT_STUDENT = "tiny", "lite"
AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def list_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def list_students() -> list[str]:
    """Names of the student presets that ship with the package."""
    return sorted(path.stem for path in STUDENTS.glob("*.yaml"))


def load_config(
    recipe: str = "default",
    *,
    student: str | None = None,
    overrides: Sequence[str] = (),
    inputs: Mapping[str, str | None] | None = None,
    sections: Mapping[str, Any] | None = None,
    shared_overrides: Sequence[str] = (),
) -> Config:
    """The resolved configuration of a run.

    Args:
        recipe: a name of `list_recipes()` or a YAML file (a run's own `config.yaml` runs it again); with a line
            `extends: NAME` it says only what differs from another recipe.
        student: a name of `list_students()`, a YAML file, or a finished student's folder; else the recipe's, or `tiny`,
            or `lite` where the recipe starts in closed form.
        overrides: `section.key=value` items, values read as YAML; applied last.
        inputs: values of the `inputs` section; those that are None leave the recipe's.
        sections: whole sections that take the place of the recipe's; overrides come after them.
        shared_overrides: of several runs, applied before `overrides`; without those of what this run has not chosen.

    `DistilvlError` for an unknown recipe, preset or key (with the nearest known one), a value of a wrong kind, or a
    setting of a loss, balancer or schedule that is not chosen.
    """
    layers = _recipe_layers(recipe)
    if any("fit" in tree for tree in layers):
        raise DistilvlError(f"{recipe} is a configuration of distilvl fit.", "Give it to `distilvl fit --recipe`.")
    return _resolved(Config, recipe, layers, student, overrides, inputs, sections, shared_overrides)


def load_fit_config(
    saved: str | None = None,
    *,
    student: str | None = None,
    overrides: Sequence[str] = (),
    inputs: Mapping[str, str | None] | None = None,
    section: Mapping[str, Any] | None = None,
    source: str = "distilvl fit",
) -> FitConfig:
    """The resolved configuration of a closed-form run; the arguments are those of `load_config`.

    `saved` is another run's `config.yaml`; without it everything but the student is at its default. `section` is a
    section `student` in the place of a preset, and `source` what messages call the origin of all this.
    """
    layers = [] if saved is None else _recipe_layers(saved)
    if any(set(tree) & set(Config.model_fields) - set(FitConfig.model_fields) for tree in layers):
        raise DistilvlError(f"{saved} is a configuration of distilvl train.", "Give it to `distilvl train --recipe`.")
    if section is not None:
        layers = [{"student": dict(section)}]
    default = student or (None if layers else FIT_STUDENT)
    return _resolved(FitConfig, saved or source, layers, default, overrides, inputs)


def load_saved(path: Path) -> Config | FitConfig:
    """The configuration in a run folder's `config.yaml`; `DistilvlError` for a file that is none."""
    return load_fit_config(str(path)) if "fit" in _read_yaml(path) else load_config(str(path))


def _resolved(
    kind: type[AnyConfig],
    recipe: str,
    layers: list[Tree],
    student: str | None,
    overrides: Sequence[str],
    inputs: Mapping[str, str | None] | None,
    sections: Mapping[str, Any] | None = None,
    shared_overrides: Sequence[str] = (),
) -> AnyConfig:
    whole = dict(sections or {})
    # What a recipe says of how a student learns, and not of what it is, holds for any preset.
    learning = [{"student": tree["student"]} for tree in layers if _names_no_tower(tree.get("student"))]
    layers = [{k: v for k, v in tree.items() if k != "student" or not _names_no_tower(v)} for tree in layers]
    if student is not None or not any("student" in tree for tree in layers):
        name = student or (FIT_STUDENT if _begins_fitted(layers) else DEFAULT_STUDENT)
        section: Tree = {"folder": name}
        if name in list_students() or not Path(name).is_dir():  # a folder called like a preset is ./NAME
            section = _read_yaml(_find(name, STUDENTS, "student", list_students(), extra=", or a student's folder"))
        whole |= renamed({"student": section}, f"student {name}")
    layers = [{key: value for key, value in tree.items() if key not in whole} for tree in layers]
    given = {key: value for key, value in (inputs or {}).items() if value is not None}
    layers += [whole, *learning, {"inputs": given}]
    tree = layers_of.together(layers, read_overrides(shared_overrides), read_overrides(overrides))
    config = _validated(kind, tree, recipe)
    if isinstance(config, Config):
        phases_of(config, recipe)
    return config


def phases_of(config: Config, source: str = "phases") -> list[Config]:
    """The configurations of the phases before `config` itself, in their order; errors as of `load_config`."""
    whole, found = config.model_dump(mode="json", exclude={"phases"}), []
    for number, changes in enumerate(config.phases, 1):
        where = f"phase {number} of {source}"
        if unknown := [name for name in changes if name in ("inputs", "phases")]:
            raise DistilvlError(f"{where} has {unknown[0]}, which is the whole run's.", "Leave it out there.")
        own = renamed(changes, where)
        student = own.get("student")
        for tower in student.values() if isinstance(student, dict) else ():
            if isinstance(tower, dict) and tower.get("frozen"):
                tower.setdefault("trainable_layers", None)
        found.append(_validated(Config, layers_of.together([whole, own]), where))
    return found


def _validated(kind: type[AnyConfig], tree: Tree, source: str) -> AnyConfig:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise DistilvlError(*_explain(error.errors()[0], tree, source, kind)) from error


def _names_no_tower(section: Any) -> bool:
    if not isinstance(section, dict) or not set(section) <= {"image", "text"}:
        return False
    return all(isinstance(tower, dict) and set(tower) <= OF_TRAINING for tower in section.values())


def _begins_fitted(layers: list[Tree]) -> bool:
    """Whether the recipe starts from a student in closed form."""
    found = [tree["training"].get("head_init") for tree in layers if isinstance(tree.get("training"), dict)]
    return next((value for value in reversed(found) if value is not None), None) == "closed_form"


def method_sections(recipe: str) -> dict[str, Any]:
    """The sections `objective` and `balancer` of `recipe`: its method, whatever the student, rates and length."""
    config = load_config(recipe).model_dump(mode="json")
    return {"objective": config["objective"], "balancer": config["balancer"]}


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put each `section.key=value` into `tree`, in place; the value is read as YAML (`1e-3`, `[cd, fd]`, `null`)."""
    for path, value in read_overrides(overrides):
        put(tree, path, value)


def _recipe_layers(recipe: str, above: tuple[str, ...] = ()) -> list[Tree]:
    """What the recipe says, after what the recipes say that it extends."""
    tree = _read_yaml(_find(recipe, RECIPES, "recipe", list_recipes()))
    extended, old = tree.pop("extends", None), layers_of.is_saved_by_0_1(tree)
    tree = layers_of.as_saved_now(renamed(tree, recipe)) if old else renamed(tree, recipe)
    if extended is None:
        return [tree]
    if extended in (recipe, *above):
        raise DistilvlError(f"recipe {recipe} extends itself by way of {extended}.", "Correct its `extends` line.")
    return [*_recipe_layers(str(extended), (*above, recipe)), tree]


def _find(name: str, folder: Path, kind: str, known: list[str], extra: str = "") -> Path:
    shipped = folder / f"{name}.yaml"
    if "/" not in name and shipped.is_file():
        return shipped
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DistilvlError(f"unknown {kind} {name!r}.", f"{hint}Known: {', '.join(known)}, or a YAML file{extra}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise DistilvlError(f"{path} is not valid YAML: {reason}.", "Correct the file.") from error
    if not isinstance(tree, dict):
        raise DistilvlError(f"{path} does not hold a mapping.", "Write sections such as `training:` with keys.")
    return tree


def _explain(problem: Any, tree: Tree, source: str, root: type[RunConfig]) -> tuple[str, str]:
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if not location:  # of two sections that do not go together; the input would be the whole tree
        return f"{source}: {problem['ctx']['error']}.", "Correct one of the two."
    if problem["type"] != "extra_forbidden":
        return f"{dotted} in {source}: {problem['msg']}, got {problem['input']!r}.", "Correct the value."
    variants = layers_of.variants()
    within = next((path for path in variants if path == tuple(location[: len(path)])), ())
    kind, path, section = variants.get(within), location[len(within) :], ".".join(within)
    if kind and (owners := kind.owners(*path)):
        key = kind.chosen_by
        chosen = reduce(getitem, within, tree).get(key, kind.model_fields[key].default)
        now, change = f"{key} is {chosen}", f"set {key} to {' or '.join(owners)}"
        if isinstance(chosen, list):
            now, change = f"{key} are {', '.join(chosen)}", f"add {' or '.join(owners)} to {section}.{key}"
        remedy = f"To use it, {change}; otherwise leave it out."
        return f"{dotted} in {source} does nothing where {section}.{now}.", remedy
    known = _keys_at(location[:-1], tree, root)
    if kind and not path[1:]:
        known += [key for model in kind.choices().values() for key in model.model_fields if key not in known]
    near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    prefix = ".".join([*location[:-1], ""])
    hint = f"Did you mean {prefix}{near[0]!s}?" if near else f"Known keys there: {', '.join(known)}."
    return f"unknown key {dotted!r} in {source}.", hint


def _keys_at(location: Sequence[str], tree: Tree, root: type[RunConfig]) -> list[str]:
    """The keys that the section at `location` may have, given what the tree chooses."""
    model: type[BaseModel] = root
    for depth, part in enumerate(location, start=1):
        model = model_of(model.model_fields.get(part)) or model
        if issubclass(model, Variants):
            model = model.variant(reduce(getitem, location[:depth], tree))
    return list(model.model_fields)


__all__ = [
    "apply_overrides",
    "list_recipes",
    "list_students",
    "load_config",
    "load_fit_config",
    "load_saved",
    "method_sections",
    "phases_of",
    "save_config",
]
