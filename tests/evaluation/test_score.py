from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.evaluation import Recalls, Score, format_score, hard_negative_accuracy, score

OWNER = np.repeat(np.arange(20), 3)


def gallery(seed, noise=1.0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(20, 8))
    return images, images[OWNER] + noise * rng.normal(size=(60, 8))


def by_hand(images, texts, owner):
    """The six recalls in percent, by sorting every row; the data has no ties."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    hits = {(way, k): 0 for way in ("i2t", "t2i") for k in (1, 5, 10)}
    for i, image in enumerate(images):
        order = np.argsort(-(texts @ image))
        for k in (1, 5, 10):
            hits["i2t", k] += i in owner[order[:k]]
    for j, text in enumerate(texts):
        order = np.argsort(-(images @ text))
        for k in (1, 5, 10):
            hits["t2i", k] += owner[j] in order[:k]
    return [100 * hits["i2t", k] / len(images) for k in (1, 5, 10)] + [
        100 * hits["t2i", k] / len(texts) for k in (1, 5, 10)
    ]


@given(seed=st.integers(0, 1000))
def test_matches_brute_force(seed):
    images, texts = gallery(seed)
    got = score(images, texts, OWNER)
    recalls = [getattr(way, k) for way in (got.image_to_text, got.text_to_image) for k in ("r1", "r5", "r10")]
    expected = by_hand(images, texts, OWNER)
    assert recalls == pytest.approx(expected)
    assert got.rsum == pytest.approx(sum(expected))
    assert (got.images, got.texts) == (20, 60)


@given(seed=st.integers(0, 1000))
def test_order_of_items_and_length_of_rows_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    images, texts = gallery(seed)
    text_order, image_order = rng.permutation(60), rng.permutation(20)
    place = np.argsort(image_order)
    shuffled = score(
        images[image_order] * rng.uniform(0.1, 9, size=(20, 1)),
        texts[text_order] * rng.uniform(0.1, 9, size=(60, 1)),
        place[OWNER[text_order]],
    )
    assert shuffled == score(images, texts, OWNER)


def test_half_precision_features_of_a_perfect_model_score_600():
    images, texts = gallery(0, noise=0.0)
    assert score(images.astype(np.float16), texts.astype(np.float16), OWNER).rsum == 600


def test_two_images_with_the_same_features_share_their_places():
    images, texts = gallery(0, noise=0.0)
    images[1], texts[OWNER == 1] = images[0], texts[0]
    got = score(images, texts, OWNER)
    assert got.image_to_text.r1 == got.text_to_image.r1 == 90
    assert got.text_to_image.r5 == 100


def test_as_dict_is_what_eval_prints():
    images, texts = gallery(0)
    got = score(images, texts, OWNER)
    printed = json.loads(json.dumps(got.as_dict()))
    assert set(printed) == {"image_to_text", "text_to_image", "rsum"}
    assert printed["text_to_image"] == {
        "r1": got.text_to_image.r1,
        "r5": got.text_to_image.r5,
        "r10": got.text_to_image.r10,
    }


def test_format_score_is_one_line():
    line = format_score(Score(Recalls(35.6, 64.8, 77.3), Recalls(26.64, 57.8, 71.0), 1000, 5000))
    assert line == "i2t 35.6 64.8 77.3 / t2i 26.6 57.8 71.0 / RSUM 333.1"


def broken(which):
    images, texts = gallery(0)
    owner = OWNER.copy()
    if which == "nan":
        texts[7, 2] = np.nan
    elif which == "inf":
        images[3, 0] = np.inf
    elif which == "zero":
        images[5] = 0
    elif which == "constant":
        texts = np.repeat(texts[:1], 60, axis=0) + 1e-9
    elif which == "scaled constant":
        images = images[:1] * np.arange(1, 21)[:, None]
    elif which == "width":
        texts = texts[:, :7]
    elif which == "flat":
        images = images[0]
    elif which == "empty":
        images = images[:0]
    elif which == "length":
        owner = owner[:-1]
    elif which == "float":
        owner = owner.astype(float)
    elif which == "negative":
        owner[4] = -1
    elif which == "outside":
        owner[4] = 20
    elif which == "textless":
        owner[owner == 6] = 7
    return images, texts, owner


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("nan", r"text features hold NaN or infinity \(first at row 7, 1 in all\)"),
        ("inf", "image features hold NaN or infinity .first at row 3"),
        ("zero", "image features hold a vector of zeros .first at row 5"),
        ("constant", "text features are the same for all 60 items"),
        ("scaled constant", "image features are the same for all 20 items"),
        ("width", "image features have dimension 8, text features 7"),
        ("flat", r"image features have shape \(8,\)"),
        ("empty", r"image features have shape \(0, 8\)"),
        ("length", r"text_image has shape \(59,\).*60 texts"),
        ("float", "text_image has .* type float64"),
        ("negative", "text_image points outside the 20 images .first at row 4"),
        ("outside", "text_image points outside the 20 images .first at row 4"),
        ("textless", "an image has no texts .first at row 6"),
    ],
)
def test_bad_input_is_named(which, message):
    with pytest.raises(DistilvlError, match=message):
        score(*broken(which))


def test_hard_negative_accuracy_wants_the_true_caption_strictly_ahead():
    images = np.eye(4)
    texts = np.eye(4) + 0.1
    negatives = texts.copy()
    negatives[0] = texts[1]  # told apart
    negatives[2] = 5 * images[2]  # better than the true caption; rows 1 and 3 tie
    assert hard_negative_accuracy(images, texts, negatives) == 25


def test_hard_negative_accuracy_checks_shapes_and_values():
    images = np.eye(4)
    with pytest.raises(DistilvlError, match="triples have shapes"):
        hard_negative_accuracy(images, images, images[:3])
    with pytest.raises(DistilvlError, match="hard-negative features hold NaN"):
        hard_negative_accuracy(images, images, images * np.nan)
