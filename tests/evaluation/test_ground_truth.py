from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.evaluation import compare, intervals, rank_gallery, score
from distilvl.evaluation import ranks as ranks_module
from distilvl.evaluation.ground_truth import Groups, RightAnswers
from distilvl.evaluation.protocols import Protocol, retrieve
from distilvl.evaluation.ranks import TIE_TOLERANCE

Array = npt.NDArray[np.float64]
Gallery = tuple[Array, Array, npt.NDArray[np.int64], Groups]


@st.composite
def galleries(draw: st.DrawFn) -> Gallery:
    """Few images and texts with many copies; features from a small grid, so that ties abound, copies alike or not."""
    pictures = draw(st.lists(st.integers(0, 4), min_size=2, max_size=8))
    n = len(pictures)
    owner = draw(st.permutations([*range(n), *draw(st.lists(st.integers(0, n - 1), max_size=8))]))
    m = len(owner)
    words = draw(st.lists(st.integers(0, 5), min_size=m, max_size=m))
    values = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
    images, texts = (np.array(draw(st.lists(values, min_size=k, max_size=k)), dtype=np.float64) for k in (n, m))
    if draw(st.booleans()):  # copies are encoded alike
        images, texts = images[[pictures.index(p) for p in pictures]], texts[[words.index(w) for w in words]]
    for rows in (images, texts):
        if np.ptp(rows / np.linalg.norm(rows, axis=1, keepdims=True), axis=0).max() < 1e-3:
            rows[0] = [3, -5, 1]  # not all the same
            rows[-1] = [-2, 1, 7]
    return images, texts, np.array(owner), Groups(np.array(pictures), np.array(words))


def right_pairs(owner: npt.NDArray[np.int64], groups: Groups) -> list[set[int]]:
    """For each image the set of its right texts, by the definition, one pair at a time."""
    held = {(int(groups.image[image]), int(groups.text[text])) for text, image in enumerate(owner)}
    texts = range(len(owner))
    return [{t for t in texts if (int(picture), int(groups.text[t])) in held} for picture in groups.image]


def brute_force(gallery: Gallery) -> tuple[list[list[int]], list[list[int]]]:
    """All ranks of the right answers of images and of texts; wrong items that tie come first."""
    images, texts, owner, groups = gallery
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
    cosine = x @ y.T
    of_images = right_pairs(owner, groups)
    of_texts = [{i for i in range(len(x)) if t in of_images[i]} for t in range(len(y))]

    def ranks(values: Array, right: set[int]) -> list[int]:
        own = sorted((values[k] for k in right), reverse=True)
        wrong = [values[k] for k in range(len(values)) if k not in right]
        return [place + sum(w >= value - TIE_TOLERANCE for w in wrong) for place, value in enumerate(own, start=1)]

    return ([ranks(cosine[i], right) for i, right in enumerate(of_images)],
            [ranks(cosine[:, t], right) for t, right in enumerate(of_texts)])  # fmt: skip


def precision(ranks: list[list[int]]) -> tuple[float, float]:
    """R-Precision and mAP@R from their definitions."""
    shares, averages = [], []
    for of_query in ranks:
        wanted = len(of_query)
        shares.append(sum(rank <= wanted for rank in of_query) / wanted)
        found = [sum(r <= place for r in of_query) / place for place in range(1, wanted + 1) if place in of_query]
        averages.append(sum(found) / wanted)
    return 100 * float(np.mean(shares)), 100 * float(np.mean(averages))


@settings(max_examples=300, deadline=None)
@given(galleries())
def test_ranks_and_precision_equal_those_of_sets(gallery: Gallery) -> None:
    images, texts, owner, groups = gallery
    of_images, of_texts = brute_force(gallery)
    found = retrieve(images, texts, owner, groups=groups)
    assert found.ranks.image.tolist() == [ranks[0] for ranks in of_images]
    assert found.ranks.text.tolist() == [ranks[0] for ranks in of_texts]
    for way, ranks in zip(found.precision, (of_images, of_texts), strict=True):
        assert (way.r_precision, way.map_at_r) == pytest.approx(precision(ranks))
    by_score = rank_gallery(images, texts, owner, groups)
    assert (by_score.image == found.ranks.image).all()
    assert (by_score.text == found.ranks.text).all()


@settings(max_examples=100, deadline=None)
@given(galleries(), st.integers(1, 40))
def test_ranks_do_not_depend_on_how_the_images_are_cut(gallery: Gallery, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "BLOCK", block)
        found = rank_gallery(*gallery)
    whole = rank_gallery(*gallery)
    assert (found.image == whole.image).all()
    assert (found.text == whole.text).all()


@settings(max_examples=100, deadline=None)
@given(galleries())
def test_units_are_what_shares_a_picture_or_a_caption(gallery: Gallery) -> None:
    _, _, owner, groups = gallery
    n = len(groups.image)
    words = [{int(w) for w in groups.text[owner == i]} for i in range(n)]
    expected = list(range(n))
    for _ in range(n):  # often enough to pass it on through all of them
        for i, j in combinations(range(n), 2):
            if groups.image[i] == groups.image[j] or words[i] & words[j]:
                expected[i] = expected[j] = min(expected[i], expected[j])
    units = groups.units(owner)
    assert [[units[i] == units[j] for j in range(n)] for i in range(n)] == [
        [expected[i] == expected[j] for j in range(n)] for i in range(n)
    ]
    assert sorted(set(units.tolist())) == list(range(len(set(expected))))
    assert groups.shared(owner) == (
        sum((groups.image == picture).sum() > 1 for picture in groups.image),
        sum(len({int(i) for i in owner[groups.text == word]}) > 1 for word in groups.text),
    )


@settings(max_examples=50, deadline=None)
@given(galleries())
def test_without_copies_nothing_changes(gallery: Gallery) -> None:
    images, texts, owner, _ = gallery
    plain, alone = rank_gallery(images, texts, owner), Groups.alone(len(images), len(texts))
    found = rank_gallery(images, texts, owner, alone)
    assert (found.image == plain.image).all()
    assert (found.text == plain.text).all()
    assert found.drawn.tolist() == plain.drawn.tolist() == list(range(len(images)))


def test_ideal_features_of_titles_in_pairs() -> None:
    """Every title is that of two pictures: counted by pairs nothing is first, although every answer is right."""
    titles = [f"title {k // 2}" for k in range(40)]
    rng = np.random.default_rng(0)
    ideal = rng.normal(size=(20, 8))[np.arange(40) // 2]
    owner = np.arange(40)
    pairs = score(ideal, ideal, owner)
    assert (pairs.image_to_text.r1, pairs.text_to_image.r1) == (0, 0)
    groups = Groups.by_content(list(range(40)), titles)
    content = score(ideal, ideal, owner, groups)
    assert (content.rsum, content.median_rank) == (600, (1, 1))
    found = retrieve(ideal, ideal, owner, groups=groups)
    assert [(way.r_precision, way.map_at_r) for way in found.precision] == [(100, 100), (100, 100)]


def test_one_title_does_not_join_the_other_captions() -> None:
    """Images 0 and 1 share a title; the other caption of 0 is wrong for 1. Image 2 is a copy of 1 with its own text."""
    groups = Groups.by_content([b"x", b"y", b"y"], ["untitled", "a cat", " Untitled", "a red dog"])
    owner = np.array([0, 0, 1, 2])
    answers = RightAnswers.of(groups.image, groups.text, owner, np.arange(4))
    assert [sorted(right.tolist()) for right in answers.of_queries(np.arange(3))] == [[0, 1, 2], [0, 2, 3], [0, 2, 3]]
    assert answers.counts().tolist() == [3, 3, 3]
    back = RightAnswers.of(groups.text, groups.image, np.arange(4), owner)
    assert [sorted(right.tolist()) for right in back.of_queries(np.arange(4))] == [[0, 1, 2], [0], [0, 1, 2], [1, 2]]
    assert groups.shared(owner) == (2, 2)
    assert [rows.tolist() for rows in groups.first] == [[0, 1], [0, 1, 3]]


def test_folds_of_a_protocol_keep_to_their_own_copies() -> None:
    """Images 0 and 2 are equal but in different galleries of two, so neither helps the other."""
    rng = np.random.default_rng(1)
    images, texts = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    groups = Groups(np.array([0, 1, 0, 2]), np.arange(4))
    folded = retrieve(images, texts, np.arange(4), Protocol("two", images=4, captions=1, folds=2), groups)
    apart = [score(images[part], texts[part], np.arange(2)) for part in (slice(0, 2), slice(2, 4))]
    assert folded.score.rsum == pytest.approx(np.mean([one.rsum for one in apart]))
    assert folded.ranks.drawn.tolist() == [0, 1, 0, 2]


def test_intervals_do_not_shrink_when_the_data_is_copied() -> None:
    rng = np.random.default_rng(2)
    images = rng.normal(size=(30, 4))
    owner = np.repeat(np.arange(30), 2)
    texts = images[owner] + 2 * rng.normal(size=(60, 4))
    plain = rank_gallery(images, texts, owner)
    twice = np.tile(np.arange(30), 2), np.tile(np.arange(60), 2)
    copied = rank_gallery(images[twice[0]], texts[twice[1]], np.concatenate([owner, 30 + owner]), Groups(*twice))
    assert copied.drawn.tolist() == twice[0].tolist()
    width = {name: high - low for name, (low, high) in intervals(copied).items()}
    by_image = rank_gallery(images[twice[0]], texts[twice[1]], np.concatenate([owner, 30 + owner]))
    narrow = {name: high - low for name, (low, high) in intervals(by_image).items()}
    assert width["i2t_r10"] > 1.2 * narrow["i2t_r10"]
    rival = rank_gallery(images + rng.normal(size=images.shape), texts, owner)
    assert compare(plain, rival).images == 30
    with pytest.raises(DistilvlError, match="different ground truths"):
        compare(copied, by_image)


def test_images_that_all_share_a_caption_cannot_be_resampled() -> None:
    rng = np.random.default_rng(3)
    groups = Groups(np.arange(3), np.array([0, 0, 0, 1]))
    found = rank_gallery(rng.normal(size=(3, 4)), rng.normal(size=(4, 4)), np.array([0, 1, 2, 2]), groups)
    with pytest.raises(DistilvlError, match="all share a picture or a caption"):
        intervals(found)


@pytest.mark.parametrize("bad", [np.arange(3), np.zeros(4), np.zeros((4, 1), dtype=int)])
def test_groups_need_a_whole_number_an_item(bad: npt.NDArray[np.generic]) -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 3)), rng.normal(size=(4, 3))
    with pytest.raises(DistilvlError, match="the groups of 4 texts have shape"):
        score(images, texts, [0, 0, 1, 1], Groups(np.arange(2), bad))  # type: ignore[arg-type]


def test_any_whole_numbers_will_do() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    found = score(images, texts, range(4), Groups(np.array([-7, 10**12, -7, 3]), np.array([5, 5, 9, 10**15])))
    assert found == score(images, texts, range(4), Groups(np.array([0, 1, 0, 2]), np.array([0, 0, 1, 2])))
