"""Captions read back: each must be true of its scene, and each hard negative false of it."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
from itertools import combinations, product
from random import Random

import numpy as np
import pytest
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.scenes import SceneImage, caption, captions, hard_negatives, negative_caption, scenes_dataset
from distilvl.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    GRID,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    centre,
    draw_scene,
    radius,
    relation,
    sample_scene,
)


def scene(number: int) -> Scene:
    return sample_scene(Random(f"test/{number}"))


def digest() -> str:
    dataset = scenes_dataset(train=12, val=4, test=4)
    text = "\n".join(record.image_id + "|".join(record.captions + record.hard_negatives) for record in dataset)
    pixels = b"".join(record.image.read() for record in dataset)
    return hashlib.sha256(text.encode() + pixels).hexdigest()


def test_default_splits_and_names() -> None:
    dataset = load_dataset("scenes")
    assert dataset.splits == {"train": 4000, "val": 500, "test": 1000}
    assert all(len(record.captions) == 5 for record in dataset)
    signatures = [record.image.scene.signature for record in dataset if isinstance(record.image, SceneImage)]
    assert len(set(signatures)) == len(signatures) == 5500


def test_the_same_in_another_process() -> None:
    code = "import importlib.util as u; s = u.spec_from_file_location('t', %r); m = u.module_from_spec(s); "
    code = code % __file__ + "s.loader.exec_module(m); print(m.digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest()


def test_another_seed_is_another_world_and_the_test_split_does_not_depend_on_train() -> None:
    few, many = scenes_dataset(10, 5, 20), scenes_dataset(200, 5, 20)
    assert [r.captions for r in few.split("test")] == [r.captions for r in many.split("test")]
    other = scenes_dataset(10, 5, 20, seed=1)
    assert not {c for r in few for c in r.captions} & {c for r in other for c in r.captions}


def test_images_read_as_pictures_of_the_asked_size() -> None:
    for size in (64, 200):
        record = scenes_dataset(1, 0, 0, size=size)[0]
        image = Image.open(io.BytesIO(record.image.read()))
        assert (image.size, image.mode) == ((size, size), "RGB")
        assert record.image.read() == record.image.read()


@pytest.mark.parametrize("number", range(60))
def test_objects_stay_on_the_canvas_and_apart(number: int) -> None:
    things = scene(number).objects
    assert 1 <= len(things) <= 4
    for thing in things:
        assert all(radius(thing) <= place <= GRID - radius(thing) for place in centre(thing))
    for a, b in combinations(things, 2):
        gap = max(abs(x - y) for x, y in zip(centre(a), centre(b), strict=True))
        assert gap >= radius(a) + radius(b) - 1e-9
        assert (a.shape, a.colour) != (b.shape, b.colour)


def test_every_attribute_shows_in_the_picture_at_64_pixels() -> None:
    """Two scenes that differ in one attribute differ in the drawing of that object, and only there."""
    base = Scene((SceneObject("square", "red", "large", "plain", 1, 1),), "white")
    seen = {}
    for shape, colour, size, texture in product(SHAPES, COLOURS, SIZES, TEXTURES):
        altered = Scene((SceneObject(shape, colour, size, texture, 1, 1),), "white")
        pixels = np.asarray(draw_scene(altered), dtype=np.int16)
        seen[pixels.tobytes()] = altered
        assert (np.delete(np.delete(pixels, slice(20, 44), 0), slice(20, 44), 1) == 255).all()
    assert len(seen) == len(SHAPES) * len(COLOURS) * len(SIZES) * len(TEXTURES)
    backgrounds = {draw_scene(Scene(base.objects, name)).getpixel((0, 0)) for name in BACKGROUNDS}
    assert len(backgrounds) == len(BACKGROUNDS)


@pytest.mark.parametrize("number", range(80))
def test_captions_differ_and_name_every_object(number: int) -> None:
    texts = captions(scene(number), f"k/{number}")
    assert len(set(texts)) == 5
    for text in texts:
        for thing in scene(number).objects:
            assert thing.colour in text


@pytest.mark.parametrize("number", range(80))
def test_hard_negatives_change_one_thing(number: int) -> None:
    true = scene(number)
    altered = hard_negatives(true, f"k/{number}")
    assert len({other.signature for other in altered}) == len(altered)
    for other in altered:
        assert other.signature != true.signature
        changed = [(a, b) for a, b in zip(true.objects, other.objects, strict=True) if a != b]
        if other.background != true.background:
            assert not changed
        elif len(changed) == 1:
            a, b = changed[0]
            fields = [name for name in ("shape", "colour", "size", "texture") if getattr(a, name) != getattr(b, name)]
            assert len(fields) == 1
            assert (a.column, a.row) == (b.column, b.row)
        else:
            (a, a2), (b, b2) = changed
            assert ((a.column, a.row), (b.column, b.row)) == ((b2.column, b2.row), (a2.column, a2.row))
    for style in range(5):
        wrong = negative_caption(true, f"k/{number}", style)
        assert wrong != caption(true, f"k/{number}", style)


def test_relations_agree_with_the_drawing_and_reverse_when_exchanged() -> None:
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for number in range(60):
        for a, b in combinations(scene(number).objects, 2):
            word = relation(a, b)
            assert relation(b, a) == opposite[word]
            (ax, ay), (bx, by) = centre(a), centre(b)
            assert {"left": ax < bx, "right": ax > bx, "above": ay < by, "below": ay > by}[word]


def test_a_stated_relation_is_true() -> None:
    thing = SceneObject("circle", "red", "large", "plain", 0, 1)
    other = SceneObject("star", "blue", "small", "striped", 2, 1)
    text = caption(Scene((thing, other), "grey"), "key", 2)
    left = "left of the blue" in text
    right = "right of the red" in text
    assert left != right
    assert "grey background" in text


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
