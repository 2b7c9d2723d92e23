from __future__ import annotations

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.evaluation import score
from distilvl.evaluation.protocols import PROTOCOLS, Protocol, find_protocol, folds, retrieve

SMALL = Protocol("small", images=12, captions=2, folds=3)


def small_gallery(shuffled=False):
    rng = np.random.default_rng(4)
    images = rng.normal(size=(12, 6))
    owner = np.repeat(np.arange(12), [2, 3, 2, 2, 4, 2, 2, 2, 2, 2, 2, 2])
    texts = images[owner] + rng.normal(size=(len(owner), 6))
    if shuffled:
        order = rng.permutation(len(owner))
        texts, owner = texts[order], owner[order]
    return images, texts, owner


@pytest.mark.parametrize("shuffled", [False, True])
def test_folds_are_scored_apart_on_the_first_captions(shuffled):
    images, texts, owner = small_gallery(shuffled)
    found = retrieve(images, texts, owner, SMALL)
    parts = []
    for start in (0, 4, 8):
        rows = [j for image in range(start, start + 4) for j in np.flatnonzero(owner == image)[:2]]
        parts.append(score(images[start : start + 4], texts[rows], owner[rows] - start))
    assert found.score.rsum == pytest.approx(np.mean([part.rsum for part in parts]))
    assert found.score.text_to_image.r1 == pytest.approx(np.mean([part.text_to_image.r1 for part in parts]))
    assert (found.score.images, found.score.texts) == (12, 24)
    assert found.ranks.image.max() <= 7


def test_without_a_protocol_everything_is_one_gallery():
    images, texts, owner = small_gallery()
    (whole,) = folds(None, owner, 12)
    assert whole.texts.tolist() == list(range(len(owner)))
    assert retrieve(images, texts, owner).score == score(images, texts, owner)


@pytest.mark.parametrize(
    ("name", "images", "folds_", "test_set"),
    [
        ("flickr30k-1k", 1000, 1, "Flickr30k 1K test"),
        ("flickr8k-1k", 1000, 1, ""),
        ("coco-5k", 5000, 1, "COCO 5K test"),
        ("coco-1k", 5000, 5, ""),
    ],
)
def test_the_named_ones(name, images, folds_, test_set):
    protocol = find_protocol(name)
    assert (protocol.images, protocol.captions, protocol.folds, protocol.test_set) == (images, 5, folds_, test_set)
    owner = np.repeat(np.arange(images), 5)
    found = list(folds(protocol, owner, images))
    assert [len(fold.images) for fold in found] == [images // folds_] * folds_
    assert [len(fold.texts) for fold in found] == [5 * images // folds_] * folds_
    assert np.concatenate([fold.images for fold in found]).tolist() == list(range(images))


def test_what_does_not_fit_is_said():
    owner = np.repeat(np.arange(1000), 5)
    with pytest.raises(DistilvlError, match="protocol coco-5k has 5,000 images, the data has 1,000"):
        list(folds(PROTOCOLS["coco-5k"], owner, 1000))
    owner[owner == 7] = 6
    with pytest.raises(DistilvlError, match=r"5 captions an image, but image row 7 has 0 \(1 images"):
        list(folds(PROTOCOLS["flickr30k-1k"], owner, 1000))
    with pytest.raises(DistilvlError, match=r"no protocol 'flickr'.*flickr30k-1k, flickr8k-1k, coco-5k, coco-1k"):
        find_protocol("flickr")


def test_published_tables_know_the_test_sets():
    from distilvl.experiments.published import TEST_SETS

    assert {protocol.test_set for protocol in PROTOCOLS.values()} - {""} == set(TEST_SETS)
