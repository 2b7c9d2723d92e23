"""What a table of the paper is: cells over one base recipe, the published values, and the claims to be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distilvl.errors import DistilvlError

TABLES = Path(__file__).parent / "tables"

Recalls = tuple[float, float, float]
"""R@1, R@5, R@10, percent."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperRow(_Part):
    """What the paper prints for a cell; single seed."""

    image_to_text: Recalls | None = None
    text_to_image: Recalls | None = None
    rsum: float


class Cell(_Part):
    """One row of a table: the base recipe with some values changed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_.+-]+$")]
    label: str
    method: str | None = Field(
        None, description="recipe whose `objective` and `balancer` this row takes; the rest stays the base recipe's"
    )
    recipe: str | None = Field(None, description="recipe that this row runs in the place of the base recipe")
    set: tuple[str, ...] = Field((), description="`section.key=value` overrides")
    paper: PaperRow | None = None
    note: str = ""


class Claim(_Part):
    """An ordering that the paper's table shows: `better` has a higher RSUM than each cell of `than`."""

    text: str
    better: str
    than: Annotated[tuple[str, ...], Field(min_length=1)]


class TableSpec(_Part):
    """A table of the paper."""

    name: str
    title: str
    output: Literal["rows", "published", "cost", "spaces"] = Field(
        "rows",
        description="what is made of the runs: the rows themselves, our row among the published ones, size and speed "
        "beside the teacher's, or a drawing of both feature spaces",
    )
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _claims_name_cells(self) -> TableSpec:
        names = [cell.name for cell in self.cells]
        if len(set(names)) != len(names):
            raise ValueError(f"a cell is named twice: {names}")
        for claim in self.claims:
            for name in (claim.better, *claim.than):
                if name not in names:
                    raise ValueError(f"claim {claim.text!r} names cell {name!r}, which does not exist")
        return self

    def cell(self, name: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.name == name)


def list_tables() -> list[str]:
    """Names of the shipped tables, in the paper's order."""
    return sorted((path.stem for path in TABLES.glob("*.yaml")), key=lambda name: (len(name), name))


def load_table(name: str) -> TableSpec:
    """A shipped table by name (`table4`), or one of your own from a YAML file.

    Raises:
        DistilvlError: no such table, or a file that is not one.
    """
    path = TABLES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file() or path.suffix not in {".yaml", ".yml"}:
        raise DistilvlError(f"there is no table {name!r}.", f"Choose from {', '.join(list_tables())}, or a YAML file.")
    try:
        return TableSpec.model_validate({"name": path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))})
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise DistilvlError(f"{path} is not a table: {' '.join(str(error).split())}.", "Correct the file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DistilvlError(f"{where or 'table'} in {path}: {first['msg']}.", "Correct the file.") from error
