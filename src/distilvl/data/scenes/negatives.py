"""Hard negatives: scenes that differ from a given one in one attribute, or have two objects change places."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from random import Random

from distilvl.data.scenes.captions import caption
from distilvl.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    draw_without_replacement,
    pick,
    relation,
)

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
    """At most one pair of objects stands differently to each other.

    Two objects that change places may also turn `left of` into `above` for a third one; a caption that states only
    that would read differently and yet be true of `scene`.
    """
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
