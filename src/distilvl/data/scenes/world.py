"""The symbolic world of `scenes`: what a scene is made of, how one is drawn by lot, and how it looks at any size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import cos, pi, sin
from random import Random
from typing import TypeVar

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "arrow")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted", "checked")

RGB = tuple[int, int, int]
_COLOURS: dict[str, RGB] = {
    **{"red": (214, 32, 38), "orange": (255, 136, 0), "yellow": (255, 221, 26), "green": (28, 150, 60)},
    **{"blue": (32, 84, 214), "purple": (128, 44, 172), "pink": (255, 132, 190), "brown": (126, 76, 36)},
}
_BACKGROUNDS: dict[str, RGB] = {
    **{"white": (255, 255, 255), "grey": (150, 150, 150), "black": (16, 16, 18), "cream": (246, 228, 186)},
    **{"light blue": (176, 216, 244), "light green": (186, 234, 184)},
}
COLOURS, BACKGROUNDS = tuple(_COLOURS), tuple(_BACKGROUNDS)

GRID = 3  # objects stand in the cells of a grid of 3 x 3, one a cell, so that none hides another
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
    """One object: of `SHAPES`, `COLOURS`, `SIZES` and `TEXTURES` one each, in a cell of the grid."""

    shape: str
    colour: str
    size: str
    texture: str
    column: int  # from the left, 0 to 2
    row: int  # from the top, 0 to 2
    jitter: tuple[float, float] = (0.0, 0.0)  # offset, each axis in [-1, 1]; +-1 touches the border of the cell
    stretch: float = 1.0  # factor on the radius, in [0.92, 1]


@dataclass(frozen=True, slots=True)
class Scene:
    """One to four objects on a background; no two objects share both shape and colour."""

    objects: tuple[SceneObject, ...]
    background: str

    @property
    def signature(self) -> Signature:
        """What the scene is, whatever the order of its objects and their exact offsets and stretch."""
        return (self.background, *sorted((o.shape, o.colour, o.size, o.texture, o.column, o.row) for o in self.objects))


def relation(a: SceneObject, b: SceneObject) -> str:
    """Where `a` is, seen from `b`: `left`, `right`, `above` or `below`, on the axis on which they are farther apart."""
    across, down = a.column - b.column, a.row - b.row
    if abs(across) >= abs(down):
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
        size, texture = pick(rng, SIZES), pick(rng, TEXTURES)
        jitter = (2 * rng.random() - 1, 2 * rng.random() - 1)
        stretch = 0.92 + 0.08 * rng.random()
        objects.append(SceneObject(shape, colour, size, texture, cell % GRID, cell // GRID, jitter, stretch))
    return Scene(tuple(objects), pick(rng, BACKGROUNDS))


def _sample_count(rng: Random) -> int:
    left = rng.random()
    for count, weight in COUNT_WEIGHTS:
        left -= weight
        if left < 0:
            return count
    return COUNT_WEIGHTS[-1][0]


SUPERSAMPLING = 3
# All lengths are in cells of the grid. A large object fills its cell but for a thin gap.
_RADIUS = {"small": 0.33, "large": 0.47}
_OUTLINE = 0.045
_PERIOD = 0.23  # of stripes, dots and checks: three or more of them fit in a small object


def radius(thing: SceneObject) -> float:
    """Half the side of the square the object is drawn in, in cells."""
    return _RADIUS[thing.size] * thing.stretch


def centre(thing: SceneObject) -> tuple[float, float]:
    """Centre of the object in cells; never nearer to the border of its cell than its radius."""
    free = 0.5 - radius(thing)
    return thing.column + 0.5 + thing.jitter[0] * free, thing.row + 0.5 + thing.jitter[1] * free


def draw_scene(scene: Scene, size: int = 64) -> Image.Image:
    """The scene as an RGB image of `size` x `size` pixels."""
    side = size * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), _BACKGROUNDS[scene.background])
    for thing in scene.objects:
        _draw_object(canvas, thing, side / GRID)
    return canvas.reduce(SUPERSAMPLING)


def _draw_object(canvas: Image.Image, thing: SceneObject, cell: float) -> None:
    across, down = centre(thing)
    half = radius(thing) * cell
    side, colour = max(2, int(2 * half)), _COLOURS[thing.colour]
    corner = (int(across * cell - half), int(down * cell - half))
    canvas.paste(_mix(colour, (0, 0, 0), 0.55), corner, _mask(thing.shape, side, 1.0))
    inside = _mask(thing.shape, side, 1.0 - _OUTLINE / radius(thing))
    canvas.paste(_texture(thing.texture, colour, side, cell * _PERIOD), corner, inside)


def _mask(shape: str, side: int, scale: float) -> Image.Image:
    mask, middle = Image.new("1", (side, side)), (side - 1) / 2
    points = [(middle + x * scale * middle, middle + y * scale * middle) for x, y in _POLYGONS[shape]]
    ImageDraw.Draw(mask).polygon(points, fill=1)
    return mask


def _texture(name: str, colour: RGB, side: int, period: float) -> Image.Image:
    tile = Image.new("RGB", (side, side), colour)
    luminance = 0.30 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    second = _mix(colour, (0, 0, 0), 0.6) if luminance > 150 else _mix(colour, (255, 255, 255), 0.82)
    pen, steps = ImageDraw.Draw(tile), int(side / period / 2) + 1
    middle, half = side / 2, period / 2
    if name == "striped":
        for i in range(-steps, steps + 1):
            top = middle + i * period - half / 2
            pen.rectangle((0, top, side, top + half), fill=second)
    elif name == "dotted":
        spot = period * 0.36
        for i, j in product(range(-steps, steps + 1), repeat=2):
            x, y = middle + i * period * 1.15, middle + j * period * 1.15
            pen.ellipse((x - spot, y - spot, x + spot, y + spot), fill=second)
    elif name == "checked":
        check = period * 0.72  # four meet in the middle: one check there would look like a dot on a small object
        for i, j in product(range(-steps - 2, steps + 2), repeat=2):
            if (i + j) % 2:
                x, y = middle + i * check, middle + j * check
                pen.rectangle((x, y, x + check, y + check), fill=second)
    return tile


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _heart(t: float) -> tuple[float, float]:
    return sin(t) ** 3, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t) + 2) / 16


# Corners of each shape in [-1, 1] x [-1, 1], y downwards.
_POLYGONS: dict[str, Sequence[tuple[float, float]]] = {
    "circle": [(cos(k * pi / 24), sin(k * pi / 24)) for k in range(48)],
    "star": [(r * sin(k * pi / 5), 0.1 - 1.05 * r * cos(k * pi / 5)) for k, r in enumerate((1.0, 0.46) * 5)],
    "heart": [_heart(k * pi / 20) for k in range(40)],
    "square": ((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),
    "triangle": ((0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)),
    "diamond": ((0.0, -1.0), (0.82, 0.0), (0.0, 1.0), (-0.82, 0.0)),
    "cross": ((-0.36, -1.0), (0.36, -1.0), (0.36, -0.36), (1.0, -0.36), (1.0, 0.36), (0.36, 0.36),
              (0.36, 1.0), (-0.36, 1.0), (-0.36, 0.36), (-1.0, 0.36), (-1.0, -0.36), (-0.36, -0.36)),
    "arrow": ((0.0, -1.0), (0.95, 0.0), (0.42, 0.0), (0.42, 1.0), (-0.42, 1.0), (-0.42, 0.0), (-0.95, 0.0)),
}  # fmt: skip
