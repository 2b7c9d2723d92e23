"""`scenes`: a small deterministic world that needs no download, drawn with Pillow (`world`) and put into words here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from random import Random
from typing import Any

from distilvl.data.records import PairDataset, Record
from distilvl.data.scenes import world
from distilvl.data.scenes.world import Scene, SceneObject, pick, relation

_SYNONYMS = {
    **{"circle": "disc", "square": "box", "diamond": "rhombus", "cross": "plus sign"},
    **{"large": "big", "small": "little", "striped": "stripy", "dotted": "spotted", "checked": "chequered"},
}
_RELATIONS: dict[str, tuple[str, ...]] = {
    **{"left": ("to the left of", "left of"), "right": ("to the right of", "right of")},
    **{"above": ("above", "over"), "below": ("below", "under")},
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
        image = world.draw_scene(self.scene, self.size)
        return b"P6\n%d %d\n255\n" % image.size + image.tobytes()


def scenes_dataset(
    train: int = 4000, val: int = 500, test: int = 1000, seed: int = 0, size: int = 64, hard_negatives: bool = True
) -> PairDataset:
    """The embedded dataset: `train` + `val` + `test` scenes of `size` x `size` pixels with five captions each.

    No scene occurs twice, in whatever split. Another seed is another world of the same kind. With `hard_negatives`,
    each record of val and test has a wrong caption for each true one, used by scoring.
    """
    seen: set[world.Signature] = set()
    records: list[Record] = []
    # The test split is drawn first, so that it stays the same however many training scenes are asked for.
    for split, count in (("test", test), ("val", val), ("train", train)):
        keys = [f"{seed}/{split}/{index:06d}" for index in range(count)]
        records = [_record(key, split, size, seen, hard_negatives) for key in keys] + records
    return PairDataset("scenes", tuple(records))


def _record(key: str, split: str, size: int, seen: set[world.Signature], hard_negatives: bool) -> Record:
    rng = Random(key)
    while (scene := world.sample_scene(rng)).signature in seen:
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
    return _STYLES[style](scene, world.draw_without_replacement(rng, scene.objects, len(scene.objects)), rng)


def _inventory(scene: Scene, things: list[SceneObject], rng: Random) -> str:
    """Everything about every object, nothing about where it is."""
    phrases = [_phrase(thing, rng, size=True, texture=True) for thing in things]
    return f"{pick(rng, ('', 'there is ', 'i see '))}{_join(phrases)} {_background(scene, rng)}"


def _places(_: Scene, things: list[SceneObject], rng: Random) -> str:
    """Where each object is on the canvas."""
    phrases = [f"{_phrase(one, rng, size=False, texture=True)} {_PLACES[one.row][one.column]}" for one in things]
    return pick(rng, ("a picture with ", "an image of ", "a drawing with ")) + _join(phrases)


def _relations(scene: Scene, things: list[SceneObject], rng: Random) -> str:
    """Where each object is, seen from the one named before."""
    words = [f"{_phrase(things[0], rng, size=True, texture=False)} {_background(scene, rng)}"]
    for before, thing in pairwise(things):
        where = pick(rng, _RELATIONS[relation(thing, before)])
        words.append(f"{_phrase(thing, rng, size=True, texture=False)} {where} the {_short(before, rng)}")
    return ", ".join(words)


def _count(scene: Scene, things: list[SceneObject], rng: Random) -> str:
    phrases = [_phrase(thing, rng, size=False, texture=True) for thing in things]
    noun = pick(rng, ("shape", "object", "thing")) + ("" if len(things) == 1 else "s")
    return f"{_NUMBERS[len(things)]} {noun} {_background(scene, rng)}: {_join(phrases)}"


def _portrait(scene: Scene, things: list[SceneObject], rng: Random) -> str:
    """One object in full, with its place; the others around it."""
    first, *others = things
    text = f"{_phrase(first, rng, size=True, texture=True)} sits {_PLACES[first.row][first.column]}"
    around = []
    for thing in others:
        phrase = _phrase(thing, rng, size=False, texture=True)
        around.append(f"{phrase} {pick(rng, _RELATIONS[relation(thing, first)])} it")
    return f"{text}, with {_join(around)}" if around else f"{text} {_background(scene, rng)}"


_STYLES: tuple[Callable[[Scene, list[SceneObject], Random], str], ...]
_STYLES = (_inventory, _places, _relations, _count, _portrait)


def _phrase(thing: SceneObject, rng: Random, *, size: bool, texture: bool) -> str:
    """`a large striped red circle`, with the details that are asked for."""
    details = [detail for detail, asked in ((thing.size, size), (thing.texture, texture)) if asked]
    text = " ".join([*(_word(detail, rng) for detail in details), _short(thing, rng)])
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _short(thing: SceneObject, rng: Random) -> str:
    return f"{thing.colour} {_word(thing.shape, rng)}"


def _word(name: str, rng: Random) -> str:
    # One draw whether or not there is a synonym, so that an altered scene keeps the wording of all the rest.
    draw = rng.random()
    return _SYNONYMS[name] if draw >= 0.5 and name in _SYNONYMS else name


def _background(scene: Scene, rng: Random) -> str:
    return f"{pick(rng, ('on', 'against'))} a {scene.background} background"


def _join(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_ATTRIBUTES = {"colour": world.COLOURS, "shape": world.SHAPES, "size": world.SIZES, "texture": world.TEXTURES}


def hard_negatives(scene: Scene, key: str) -> list[Scene]:
    """Valid scenes, shuffled: an object of another colour, shape, size or texture; another background; two swapped."""
    rng = Random(f"{key}/negatives")
    altered = [replace(scene, background=pick(rng, [name for name in world.BACKGROUNDS if name != scene.background]))]
    for index, thing in enumerate(scene.objects):
        for name, values in _ATTRIBUTES.items():
            changes: Any = {name: pick(rng, [value for value in values if value != getattr(thing, name)])}
            candidate = _with_objects(scene, {index: replace(thing, **changes)})
            # No two objects may share both shape and colour.
            if len({(one.shape, one.colour) for one in candidate.objects}) == len(candidate.objects):
                altered.append(candidate)
    for (a, first), (b, second) in combinations(enumerate(scene.objects), 2):
        there = replace(first, column=second.column, row=second.row)
        altered.append(_with_objects(scene, {a: there, b: replace(second, column=first.column, row=first.row)}))
    return world.draw_without_replacement(rng, altered, len(altered))


def negative_caption(scene: Scene, key: str, style: int) -> str:
    """A caption of the same style and wording that is wrong for `scene` in one detail."""
    true, altered_scenes = caption(scene, key, style), hard_negatives(scene, f"{key}/{style}")
    texts = (caption(altered, key, style) for altered in altered_scenes if _is_clean(scene, altered))
    # Not every caption mentions every detail, but each names all colours: some altered scene reads differently.
    return next(text for text in texts if text != true)


def _is_clean(scene: Scene, altered: Scene) -> bool:
    """At most one pair of objects stands differently to each other: captions of others could be true of `scene`."""
    pairs = zip(combinations(scene.objects, 2), combinations(altered.objects, 2), strict=True)
    return sum(relation(*before) != relation(*after) for before, after in pairs) <= 1


def _with_objects(scene: Scene, changed: dict[int, SceneObject]) -> Scene:
    return replace(scene, objects=tuple(changed.get(k, thing) for k, thing in enumerate(scene.objects)))
