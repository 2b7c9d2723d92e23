"""Recipes (training) and presets (students) as YAML, and the code that reads, overrides and checks them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_texts

RECIPES = Path(__file__).parent
STUDENTS = RECIPES / "students"
DEFAULT_STUDENT = "tiny"


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
) -> Config:
    """The resolved configuration of a run.

    Args:
        recipe: a name of `list_recipes()` or a YAML file (a run's own `config.yaml` runs it again); with a line
            `extends: NAME` it says only what differs from another recipe.
        student: a name of `list_students()`, a YAML file, or the folder of a finished student;
            the recipe's own, or `tiny`, when not given.
        overrides: `section.key=value` items, values read as YAML; applied last.
        inputs: values of the `inputs` section; those that are None leave the recipe's.
        sections: whole sections that take the place of the recipe's; overrides come after them.

    Raises:
        DistilvlError: unknown recipe, preset or key (with the nearest known one), or a value of a wrong kind.
    """
    tree = {**_recipe_tree(recipe), **(sections or {})}
    if student is None and "student" not in tree:
        student = DEFAULT_STUDENT
    if student is not None:
        tree["student"] = _student_section(student)
    given = {key: value for key, value in (inputs or {}).items() if value is not None}
    if given:
        tree["inputs"] = {**(tree.get("inputs") or {}), **given}
    apply_overrides(tree, overrides)
    return _validate(tree, recipe)


def method_sections(recipe: str) -> dict[str, Any]:
    """The sections `objective` and `balancer` of `recipe`: its method, whatever the student, rates and length."""
    config = load_config(recipe).model_dump(mode="json")
    return {"objective": config["objective"], "balancer": config["balancer"]}


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put each `section.key=value` into `tree`, in place; the value is read as YAML (`1e-3`, `[cd, fd]`, `null`)."""
    for item in list_of_texts(overrides):
        dotted, equals, raw = item.partition("=")
        if not equals or not dotted:
            raise DistilvlError(f"--set {item!r} is not key=value.", "Write it like --set balancer.tau=0.5")
        *parents, leaf = dotted.strip().split(".")
        node = tree
        for part in parents:
            child = node.get(part)
            if not isinstance(child, dict):
                child = node[part] = {}
            node = child
        node[leaf] = _parse_value(raw)


def _parse_value(raw: str) -> Any:
    """YAML, with the floats that YAML 1.1 takes for text (`1e-3`) read as floats."""
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise DistilvlError(f"--set value {raw!r} is not valid YAML.", "Quote text that holds : or [.") from error
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _student_section(student: str) -> dict[str, Any]:
    if Path(student).is_dir():
        return {"folder": student}
    return _read_yaml(_find(student, STUDENTS, "student", list_students(), extra=", or a student's folder"))


def _recipe_tree(recipe: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """The recipe's values on top of those of the recipe that it extends."""
    tree = _read_yaml(_find(recipe, RECIPES, "recipe", list_recipes()))
    extended = tree.pop("extends", None)
    if extended is None:
        return tree
    if extended in (recipe, *below):
        raise DistilvlError(f"recipe {recipe} extends itself by way of {extended}.", "Correct its `extends` line.")
    return _merged(_recipe_tree(str(extended), (*below, recipe)), tree)


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` over `base`; sections are merged key by key, everything else is replaced."""
    out = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out


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


def _validate(tree: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise DistilvlError(*_explain(error.errors()[0], source)) from error


def _explain(problem: Any, source: str) -> tuple[str, str]:
    location = [str(part) for part in problem["loc"]]
    dotted = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"{dotted} in {source}: {problem['msg']}, got {problem['input']!r}.", "Correct the value."
    parent: type[BaseModel] = Config
    for part in location[:-1]:
        parent = _section_of(parent, part) or parent
    fields = list(parent.model_fields)
    near = difflib.get_close_matches(location[-1], fields, n=1, cutoff=0.5)
    prefix = ".".join([*location[:-1], ""])
    hint = f"Did you mean {prefix}{near[0]!s}?" if near else f"Known keys there: {', '.join(fields)}."
    return f"unknown key {dotted!r} in {source}.", hint


def _section_of(parent: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = parent.model_fields.get(name)
    kind = field.annotation if field else None
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


__all__ = ["apply_overrides", "list_recipes", "list_students", "load_config", "method_sections", "save_config"]
