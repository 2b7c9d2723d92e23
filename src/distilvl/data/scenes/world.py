"""The symbolic world: what a scene is made of, and how one is drawn by lot.

Only `Random.random()` is used, seeded with strings: Python promises the same sequence in every version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "arrow")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted", "checked")
BACKGROUNDS = ("white", "grey", "black", "cream", "light blue", "light green")

GRID = 3
"""Objects stand in the cells of a grid of 3 x 3, one a cell, so that none hides another."""

COUNT_WEIGHTS = ((1, 0.08), (2, 0.30), (3, 0.37), (4, 0.25))
"""How many objects a scene has. Single objects are rare: few words tell them apart."""

T = TypeVar("T")
Signature = tuple[object, ...]


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options`, all equally likely."""
    return options[int(rng.random() * len(options))]


def draw_without_replacement(rng: Random, options: Sequence[T], count: int) -> list[T]:
    """`count` different members of `options`, in random order (Fisher-Yates)."""
    left = list(options)
    return [left.pop(int(rng.random() * len(left))) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        size: one of `SIZES`.
        texture: one of `TEXTURES`.
        column: cell of the grid from the left, 0 to 2.
        row: cell of the grid from the top, 0 to 2.
        jitter: offset inside the cell, each axis in [-1, 1]; +-1 touches the border of the cell.
        stretch: factor on the radius, in [0.92, 1].
    """

    shape: str
    colour: str
    size: str
    texture: str
    column: int
    row: int
    jitter: tuple[float, float] = (0.0, 0.0)
    stretch: float = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One to four objects on a background; no two objects share both shape and colour."""

    objects: tuple[SceneObject, ...]
    background: str

    @property
    def signature(self) -> Signature:
        """What the scene is, whatever the order of its objects and their exact offsets and stretch."""
        objects = sorted((o.shape, o.colour, o.size, o.texture, o.column, o.row) for o in self.objects)
        return (self.background, *objects)


def relation(a: SceneObject, b: SceneObject, prefer_horizontal: bool = True) -> str:
    """Where `a` is, seen from `b`: `left`, `right`, `above` or `below`.

    The axis on which they are farther apart decides, `prefer_horizontal` where both are equal. So exchanging
    the places of the two always gives the opposite relation.
    """
    across, down = a.column - b.column, a.row - b.row
    horizontal = abs(across) > abs(down) or (abs(across) == abs(down) and prefer_horizontal)
    if horizontal:
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def sample_scene(rng: Random) -> Scene:
    """A scene drawn by lot."""
    cells = draw_without_replacement(rng, range(GRID * GRID), _sample_count(rng))
    kinds: set[tuple[str, str]] = set()
    objects = []
    for cell in cells:
        shape, colour = pick(rng, SHAPES), pick(rng, COLOURS)
        while (shape, colour) in kinds:
            shape, colour = pick(rng, SHAPES), pick(rng, COLOURS)
        kinds.add((shape, colour))
        objects.append(
            SceneObject(
                shape=shape,
                colour=colour,
                size=pick(rng, SIZES),
                texture=pick(rng, TEXTURES),
                column=cell % GRID,
                row=cell // GRID,
                jitter=(2 * rng.random() - 1, 2 * rng.random() - 1),
                stretch=0.92 + 0.08 * rng.random(),
            )
        )
    return Scene(tuple(objects), pick(rng, BACKGROUNDS))


def _sample_count(rng: Random) -> int:
    left = rng.random()
    for count, weight in COUNT_WEIGHTS:
        left -= weight
        if left < 0:
            return count
    return COUNT_WEIGHTS[-1][0]
