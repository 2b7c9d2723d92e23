"""`scenes`: a small deterministic world that needs no download, drawn with Pillow (`world`) and put into words here.

Each scene has five captions, one of each style, and captions that are wrong in one detail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from random import Random

from distilvl.data.records import PairDataset, Record
from distilvl.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    Signature,
    draw_scene,
    draw_without_replacement,
    pick,
    ppm_bytes,
    relation,
    sample_scene,
)

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus sign"),
    "large": ("large", "big"),
    "small": ("small", "little"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "chequered"),
}
_RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_PLACES = (
    ("in the top left corner", "at the top", "in the top right corner"),
    ("on the left", "in the centre", "on the right"),
    ("in the bottom left corner", "at the bottom", "in the bottom right corner"),
)
_NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class SceneImage:
    """The picture of a scene, drawn anew at each reading; equal scenes and sizes give equal bytes."""

    name: str
    scene: Scene
    size: int

    def read(self) -> bytes:
        """Binary PPM of `size` x `size` pixels."""
        return ppm_bytes(draw_scene(self.scene, self.size))


def scenes_dataset(
    train: int = 4000, val: int = 500, test: int = 1000, seed: int = 0, size: int = 64, hard_negatives: bool = True
) -> PairDataset:
    """The embedded dataset: `train` + `val` + `test` different scenes with five captions each.

    Args:
        train, val, test: images of each split; no scene occurs twice, in whatever split.
        seed: another seed is another world of the same kind.
        size: side of the square images, pixels.
        hard_negatives: give each record of val and test a wrong caption for each true one, used by scoring.
    """
    seen: set[Signature] = set()
    # The test split comes first, so that it stays the same however many training scenes are asked for.
    counts = {"test": test, "val": val, "train": train}
    records = {
        split: [_record(f"{seed}/{split}/{index:06d}", split, size, seen, hard_negatives) for index in range(count)]
        for split, count in counts.items()
    }
    return PairDataset("scenes", tuple(records["train"] + records["val"] + records["test"]))


def _record(key: str, split: str, size: int, seen: set[Signature], hard_negatives: bool) -> Record:
    rng = Random(key)
    while (scene := sample_scene(rng)).signature in seen:
        pass
    seen.add(scene.signature)
    texts, wrong, name = captions(scene, key), list[str](), f"scenes/{key}"
    if hard_negatives and split != "train":
        wrong = [negative_caption(scene, key, style) for style in range(len(texts))]
    return Record(name, SceneImage(name, scene, size), texts, split, hard_negatives=tuple(wrong))


def captions(scene: Scene, key: str) -> tuple[str, ...]:
    """The five captions of `scene`; they always differ from each other."""
    return tuple(caption(scene, key, style) for style in range(len(_STYLES)))


def caption(scene: Scene, key: str, style: int) -> str:
    """The caption of one style, 0 to 4; its wording depends on `key` and `style` alone."""
    rng = Random(f"{key}/caption/{style}")
    return _STYLES[style](scene, rng)


def _inventory(scene: Scene, rng: Random) -> str:
    """Everything about every object, nothing about where it is."""
    things = [_phrase(thing, rng, size=True, texture=True) for thing in _shuffled(scene, rng)]
    opening = pick(rng, ("", "there is ", "i see "))
    return f"{opening}{_join(things)} {_background(scene, rng)}"


def _places(scene: Scene, rng: Random) -> str:
    """Where each object is on the canvas."""
    things = [
        f"{_phrase(thing, rng, size=False, texture=True)} {_PLACES[thing.row][thing.column]}"
        for thing in _shuffled(scene, rng)
    ]
    opening = pick(rng, ("a picture with ", "an image of ", "a drawing with "))
    return opening + _join(things)


def _relations(scene: Scene, rng: Random) -> str:
    """Where each object is, seen from the one named before."""
    things = _shuffled(scene, rng)
    first = _phrase(things[0], rng, size=True, texture=False)
    words = [f"{first} {_background(scene, rng)}"]
    for before, thing in pairwise(things):
        where = pick(rng, _RELATIONS[relation(thing, before)])
        words.append(f"{_phrase(thing, rng, size=True, texture=False)} {where} the {_short(before, rng)}")
    return ", ".join(words)


def _count(scene: Scene, rng: Random) -> str:
    """How many objects there are, then the list."""
    things = [_phrase(thing, rng, size=False, texture=True) for thing in _shuffled(scene, rng)]
    noun = pick(rng, ("shape", "object", "thing")) + ("" if len(things) == 1 else "s")
    return f"{_NUMBERS[len(things)]} {noun} {_background(scene, rng)}: {_join(things)}"


def _portrait(scene: Scene, rng: Random) -> str:
    """One object in full, with its place; the others around it."""
    first, *others = _shuffled(scene, rng)
    place = _PLACES[first.row][first.column]
    text = f"{_phrase(first, rng, size=True, texture=True)} sits {place}"
    around = [
        f"{_phrase(thing, rng, size=False, texture=True)} {pick(rng, _RELATIONS[relation(thing, first)])} it"
        for thing in others
    ]
    return f"{text}, with {_join(around)}" if around else f"{text} {_background(scene, rng)}"


_STYLES: tuple[Callable[[Scene, Random], str], ...] = (_inventory, _places, _relations, _count, _portrait)


def _shuffled(scene: Scene, rng: Random) -> list[SceneObject]:
    return draw_without_replacement(rng, scene.objects, len(scene.objects))


def _phrase(thing: SceneObject, rng: Random, *, size: bool, texture: bool) -> str:
    """`a large striped red circle`, with the details that are asked for."""
    words = [_word(thing.size, rng)] if size else []
    if texture:
        words.append(_word(thing.texture, rng))
    words.append(_short(thing, rng))
    text = " ".join(words)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _short(thing: SceneObject, rng: Random) -> str:
    return f"{thing.colour} {_word(thing.shape, rng)}"


def _word(name: str, rng: Random) -> str:
    # One draw whether or not there is a synonym, so that an altered scene keeps the wording of all the rest.
    draw = rng.random()
    words = _SYNONYMS.get(name, (name,))
    return words[int(draw * len(words))]


def _background(scene: Scene, rng: Random) -> str:
    return f"{pick(rng, ('on', 'against'))} a {scene.background} background"


def _join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}


def hard_negatives(scene: Scene, key: str) -> list[Scene]:
    """Altered scenes in random order, one for each way to alter `scene`: valid scenes, drawable and describable.

    For every object one of another colour, shape, size and texture each; another background; and every two objects
    exchanged.
    """
    rng = Random(f"{key}/negatives")
    altered = [_with_background(scene, rng)]
    for index, thing in enumerate(scene.objects):
        for name, values in _ATTRIBUTES.items():
            options = [value for value in values if value != getattr(thing, name)]
            candidate = _with_object(scene, index, {name: pick(rng, options)})
            if _is_valid(candidate):
                altered.append(candidate)
    altered += [_exchanged(scene, a, b) for a, b in combinations(range(len(scene.objects)), 2)]
    return draw_without_replacement(rng, altered, len(altered))


def negative_caption(scene: Scene, key: str, style: int) -> str:
    """A caption of the same style and wording that is wrong for `scene` in one detail."""
    true = caption(scene, key, style)
    altered_scenes = hard_negatives(scene, f"{key}/{style}")
    texts = (caption(altered, key, style) for altered in altered_scenes if _is_clean(scene, altered))
    # Not every caption mentions every detail, but each names all colours: some altered scene reads differently.
    return next(text for text in texts if text != true)


def _is_clean(scene: Scene, altered: Scene) -> bool:
    """At most one pair of objects stands differently to each other: captions of others could be true of `scene`."""
    pairs = zip(combinations(scene.objects, 2), combinations(altered.objects, 2), strict=True)
    return sum(relation(*before) != relation(*after) for before, after in pairs) <= 1


def _with_background(scene: Scene, rng: Random) -> Scene:
    return replace(scene, background=pick(rng, [name for name in BACKGROUNDS if name != scene.background]))


def _with_object(scene: Scene, index: int, changes: dict[str, str]) -> Scene:
    objects = list(scene.objects)
    objects[index] = replace(objects[index], **changes)  # type: ignore[arg-type]
    return replace(scene, objects=tuple(objects))


def _exchanged(scene: Scene, a: int, b: int) -> Scene:
    objects = list(scene.objects)
    first, second = objects[a], objects[b]
    objects[a] = replace(first, column=second.column, row=second.row)
    objects[b] = replace(second, column=first.column, row=first.row)
    return replace(scene, objects=tuple(objects))


def _is_valid(scene: Scene) -> bool:
    """No two objects share both shape and colour."""
    return len({(thing.shape, thing.colour) for thing in scene.objects}) == len(scene.objects)
