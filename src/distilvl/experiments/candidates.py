"""Candidates for a student's towers, as `distilvl towers` is given them: a tower, a student, or a list of both in YAML.

    PLACE?key=value&...         an image tower; the keys are those of the section `student.image`
    text:PLACE?key=value&...    a text tower; the keys are those of `student.text`
    text:static?key=value&...   a static one
    lite, mine.yaml             both towers of a preset, or of a YAML file
    {name, image, text}         in a list only: parts of the section `student`

The tower that a candidate does not name is the base student's, so that candidates differ in one tower.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from distilvl.config import FitConfig, StudentConfig
from distilvl.errors import DistilvlError
from distilvl.io.specs import Spec, parse_spec
from distilvl.recipes import list_students, load_fit_config

Given: TypeAlias = str | Mapping[str, Any]
SIDES = ("image", "text")
_STATIC = "static"
_WRITE = "Write texts such as PLACE?size=224 and text:PLACE?layers=3, or mappings with name, image and text."


@dataclass(frozen=True)
class Candidate:
    """A candidate by its name; whether it is one shows when `config` reads it."""

    name: str
    given: Given

    def config(self, base: StudentConfig) -> FitConfig:
        """The closed-form run that it stands for; `DistilvlError` for an unknown key or a value of a wrong kind."""
        if isinstance(self.given, str):
            spec = parse_spec(self.given, SIDES, "candidate")
            if _is_student(spec):
                spec.require(())
                return load_fit_config(student=spec.place)
            side = spec.kind or "image"
            tower = {"kind": _STATIC} if (side, spec.place) == ("text", _STATIC) else {"model": spec.place}
            overrides = [f"student.{side}.{key}={spec.one(key)}" for key in spec.options]
            return self._resolved({side: tower}, base, overrides)
        if unknown := sorted(set(self.given) - {"name", *SIDES}):
            raise DistilvlError(f"the candidate {self.name} has an unknown key {unknown[0]!r}.", _WRITE)
        return self._resolved({side: self.given[side] for side in SIDES if side in self.given}, base, ())

    def _resolved(self, towers: Mapping[str, Any], base: StudentConfig, overrides: Sequence[str]) -> FitConfig:
        others = {side: getattr(base, side).model_dump(mode="json") for side in SIDES if side not in towers}
        source = f"the candidate {self.name}"
        return load_fit_config(section={**others, **towers}, overrides=overrides, source=source)


def read_candidates(given: Sequence[Given], file: str | Path | None = None) -> list[Candidate]:
    """Those of a command line and those of a YAML list, each with a name of its own.

    `DistilvlError` for none, one that is given twice, or a file that is no such list.
    """
    found = [*given, *([] if file is None else _read_list(Path(file)))]
    if not found:
        raise DistilvlError("no candidate is named.", "Name towers, presets or student files, or --candidates FILE.")
    short = [_name(one) for one in found]
    names = [
        one if short.count(one) == 1 else _name(given, whole=True) for one, given in zip(short, found, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise DistilvlError(f"the candidate {name} is given twice.", "Give it once, or each a name of its own.")
    return [Candidate(name, one) for name, one in zip(names, found, strict=True)]


def _is_student(spec: Spec) -> bool:
    """Whether it names a preset or a YAML file; a folder called like a preset is ./NAME."""
    return not spec.kind and (spec.place in list_students() or Path(spec.place).suffix in {".yaml", ".yml"})


def _name(given: Given, whole: bool = False) -> str:
    """What a candidate is called: as it was given, but for the folders that its place lies in, unless `whole`."""
    if not isinstance(given, str):
        return str(given["name"])
    spec = parse_spec(given, SIDES)
    short = Path(spec.place).name
    return given if whole or not short else given.replace(spec.place, short, 1)


def _read_list(path: Path) -> list[Given]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DistilvlError(f"the candidates {path} cannot be read: {reason}.", "Give a YAML file.") from error
    if not isinstance(found, list) or not found:
        raise DistilvlError(f"{path} does not hold a list of candidates.", _WRITE)
    for k, one in enumerate(found):
        is_mapping = isinstance(one, dict) and one.get("name") and any(side in one for side in SIDES)
        if not (is_mapping or (isinstance(one, str) and one.strip())):
            raise DistilvlError(f"entry {k + 1} of {path} is no candidate.", _WRITE)
    return found
