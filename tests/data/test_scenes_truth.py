"""Captions read back: each must be true of its scene, and each hard negative false of it."""

from __future__ import annotations

import re
from random import Random

import pytest

from distilvl.data.scenes import captions, negative_caption
from distilvl.data.scenes.world import BACKGROUNDS, COLOURS, Scene, SceneObject, sample_scene

SAME = {
    **{"disc": "circle", "box": "square", "rhombus": "diamond", "plus sign": "cross"},
    **{"big": "large", "little": "small", "stripy": "striped", "spotted": "dotted", "chequered": "checked"},
}
THING = re.compile(
    r"(?:(?P<size>small|little|large|big) )?"
    r"(?:(?P<texture>plain|striped|stripy|dotted|spotted|checked|chequered) )?"
    rf"(?P<colour>{'|'.join(COLOURS)}) "
    r"(?P<shape>circle|disc|square|box|triangle|diamond|rhombus|star|cross|plus sign|heart|arrow)\b"
)
PLACES = {
    **{"in the top left corner": (0, 0), "at the top": (1, 0), "in the top right corner": (2, 0)},
    **{"on the left": (0, 1), "in the centre": (1, 1), "on the right": (2, 1)},
    **{"in the bottom left corner": (0, 2), "at the bottom": (1, 2), "in the bottom right corner": (2, 2)},
}
RELATION = re.compile(r"\b(left|right|above|over|below|under)(?: of)? (?:it$|the )")


def find(match: re.Match[str], scene: Scene) -> SceneObject | None:
    said = {name: SAME.get(word, word) for name, word in match.groupdict().items() if word}
    fitting = [o for o in scene.objects if all(getattr(o, name) == value for name, value in said.items())]
    return fitting[0] if fitting else None


def stands(a: SceneObject, word: str, b: SceneObject) -> bool:
    return {
        "left": a.column < b.column,
        "right": a.column > b.column,
        **dict.fromkeys(("above", "over"), a.row < b.row),
        **dict.fromkeys(("below", "under"), a.row > b.row),
    }[word]


def statements(text: str, scene: Scene) -> list[bool]:
    """Every statement of a caption, checked against attributes and cells alone."""
    held = []
    background = re.search(rf" an? ({'|'.join(BACKGROUNDS)}) background", text)
    if background:
        held.append(background[1] == scene.background)
        text = text.replace(background[0], "")
    first: SceneObject | None = None
    for clause in re.split(r", with |, | and |: ", text):
        things = [find(match, scene) for match in THING.finditer(clause)]
        held += [thing is not None for thing in things]
        if not things or things[0] is None or things[-1] is None:
            continue
        first = first or things[0]
        place = next((cell for words, cell in PLACES.items() if clause.endswith(words)), None)
        if place is not None:
            held.append((things[0].column, things[0].row) == place)
        if stated := RELATION.search(clause):
            held.append(stands(things[0], stated[1], things[-1] if len(things) > 1 else first))
    return held


@pytest.mark.parametrize("number", range(150))
def test_captions_are_true_and_hard_negatives_are_not(number: int) -> None:
    scene, key = sample_scene(Random(f"truth/{number}")), f"truth/{number}"
    count = len(scene.objects)
    for style, text in enumerate(captions(scene, key)):
        held = statements(text, scene)
        assert all(held), text
        # Read nothing, and everything is true: each style states at least so much.
        assert len(held) >= (count + 1, 2 * count, 2 * count, count + 1, 2 * count)[style], text
        wrong = negative_caption(scene, key, style)
        assert not all(statements(wrong, scene)), f"{wrong} | {text}"


def test_an_exchange_that_only_turns_another_relation_is_no_hard_negative() -> None:
    """Many keys on a scene where exchanging two objects turns `left of` the third into `above` it, both true."""
    things = (("circle", "red", 0, 0), ("star", "blue", 1, 2), ("heart", "green", 2, 1))
    objects = tuple(SceneObject(shape, colour, "small", "plain", x, y) for shape, colour, x, y in things)
    scene = Scene(objects, "grey")
    for number in range(300):
        for style in (2, 4):
            wrong = negative_caption(scene, f"turn/{number}", style)
            assert not all(statements(wrong, scene)), wrong
