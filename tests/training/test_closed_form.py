"""Heads and tables in closed form: what is chosen, and what is solved then."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Ridge

from distilvl.config import ClosedFormConfig
from distilvl.students.static import Parts, static_tokenizer
from distilvl.training.closed_form import Gallery, Gathered, at_rank, choose_table, cut_to_rank, fit_head, fit_table
from distilvl.training.ridge import RidgeSums

D = 6


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gathered(rows: np.ndarray, targets: np.ndarray, held: int, keys: list[bytes] | None = None) -> Gathered:
    sums = RidgeSums.zeros(rows.shape[1], targets.shape[1])
    sums.add(rows[held:], targets[held:])
    names = keys or [bytes([k]) for k in range(held)]
    return Gathered(sums, rows[:held], None, targets[:held], names)


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, u^v and u^t of 300 images with a caption each; x has half of what u^v is made of, and noise."""
    random = np.random.default_rng(0)
    u = unit(random.normal(size=(300, D)))
    x = np.hstack([u[:, :3], random.normal(size=(300, 5))]).astype(np.float32)
    return x, u, unit(u + 0.2 * random.normal(size=u.shape))


def test_the_head_is_the_regression_on_all_with_what_was_chosen(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, u, t = pairs
    images, texts = gathered(x, np.hstack([u, t]), 100), gathered(t, np.hstack([t, u]), 100)
    gallery = Gallery.of(images, texts, D)
    config = ClosedFormConfig(scale=1, ridges=[0.1, 10.0, 1000.0], betas=[0.0, 0.5])
    head, columns, choice = fit_head(images, [({}, slice(None))], config, config.betas,
                                     partial(gallery.of_images, texts=t[:100]), D)  # fmt: skip
    chosen = choice.settings
    expected = Ridge(alpha=chosen["ridge"]).fit((x - x.mean(0)) / x.std(0), u + chosen["partner"] * t)
    np.testing.assert_allclose(head.weight * x.std(0), expected.coef_, rtol=1e-4, atol=1e-6)
    assert columns == slice(None)
    assert choice.rsum == pytest.approx(gallery.of_images(choice.embeddings, t[:100]))


def test_the_best_candidate_is_the_one_with_the_best_held_out_score(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    x, u, t = pairs
    images = gathered(x, np.hstack([u, t]), 100)
    gallery = Gallery.of(images, gathered(t, np.hstack([t, u]), 100), D)
    rate = partial(gallery.of_images, texts=t[:100])
    config = ClosedFormConfig(betas=[0.0])
    useful, noise = np.arange(3), np.arange(3, 8)
    _, columns, choice = fit_head(images, [({"stages": [1]}, noise), ({"stages": [0]}, useful)], config, [0.0], rate, D)
    assert choice.settings["stages"] == [0]
    assert (columns == useful).all()
    for ridge in config.ridges:
        one = config.model_copy(update={"ridges": [ridge]})
        assert fit_head(images, [({}, useful)], one, [0.0], rate, D)[2].rsum <= choice.rsum


def test_without_pairs_the_teachers_lists_are_to_be_found(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, u, t = pairs
    gallery = Gallery.of(gathered(x, u, 100), gathered(t, t, 100), D)
    assert gallery.owner is None
    assert gallery.of_images(u[:100], t[:100]) == pytest.approx(200)
    assert gallery.of_texts(t[:100]) == pytest.approx(200)
    random = np.random.default_rng(5)
    near, far = (unit(u[:100] + noise * random.normal(size=(100, D))) for noise in (0.05, 0.5))
    assert 200 > gallery.of_images(near, t[:100]) > gallery.of_images(far, t[:100]) > 20


CAPTIONS = ["a red dog", "a blue dog", "a red car", "a blue car", "the dog and the car", "a dog in a red car"] * 12


def test_a_static_table_is_solved_as_by_hand() -> None:
    tokenizer = static_tokenizer(CAPTIONS, 200)
    parts = Parts.of(tokenizer)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(CAPTIONS)]
    counts = parts.counts(tokens)
    random = np.random.default_rng(1)
    u = unit(random.normal(size=(len(CAPTIONS), D)))
    texts = gathered(counts.tocsr(), np.hstack([u, u[::-1]]), 30)
    images = gathered(u, np.hstack([u, u]), 30)
    gallery = Gallery.of(images, texts, D)
    config = ClosedFormConfig(text_ridges=[0.5], alphas=[0.25])
    rows, head, _ = fit_table(texts, parts.is_pair, D, config, gallery.of_texts, D)
    dense = counts.toarray().astype(np.float64)
    gram = dense.T @ dense + 0.5 * np.eye(dense.shape[1])
    expected = np.linalg.solve(gram, dense.T @ (u + 0.25 * u[::-1]))
    np.testing.assert_allclose(parts.table(rows) @ head.T, expected, atol=1e-6)


def test_a_pair_is_its_words_and_a_difference_that_a_large_ridge_takes_away() -> None:
    tokenizer = static_tokenizer(CAPTIONS, 200, pairs=12)
    parts, entries = Parts.of(tokenizer), tokenizer.get_vocab()
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(CAPTIONS)]
    used = {token for row in tokens for token in row}
    pair = next(entry for entry, k in entries.items() if entry.count("\u2581") == 2 and k in used)
    words = ["\u2581" + word for word in pair.split("\u2581")[1:]]
    random = np.random.default_rng(2)
    u = unit(random.normal(size=(len(CAPTIONS), D)))
    texts, images = gathered(parts.counts(tokens).tocsr(), np.hstack([u, u]), 30), gathered(u, np.hstack([u, u]), 30)
    rate = Gallery.of(images, texts, D).of_texts
    config = ClosedFormConfig(text_ridges=[0.1], pair_ridges=[1e9], alphas=[0.0])
    table = parts.table(fit_table(texts, parts.is_pair, D, config, rate, D)[0])
    np.testing.assert_allclose(table[entries[pair]], sum(table[entries[word]] for word in words), atol=1e-5)
    loose = parts.table(
        fit_table(texts, parts.is_pair, D, config.model_copy(update={"pair_ridges": [0.1]}), rate, D)[0]
    )
    assert np.abs(loose[entries[pair]] - sum(loose[entries[word]] for word in words)).max() > 1e-3


def test_counts_weigh_each_text_alike() -> None:
    tokenizer = static_tokenizer(CAPTIONS, 200, pairs=12)
    parts = Parts.of(tokenizer)
    counts = parts.counts([encoding.ids for encoding in tokenizer.encode_batch(["a red dog", "the dog and the car"])])
    words = counts.toarray()[:, ~parts.is_pair]
    # n words and the end mark, each 1 / sqrt(n + 1).
    np.testing.assert_allclose(words.sum(1), [np.sqrt(4), np.sqrt(6)], rtol=1e-6)


def test_a_cut_table_is_the_nearest_of_its_rank_over_the_texts() -> None:
    random = np.random.default_rng(3)
    counts = scipy.sparse.random(200, 30, 0.2, random_state=4).toarray()
    table = random.normal(size=(30, D))
    for rank in range(1, D + 1):
        rows, head = cut_to_rank(table, counts.T @ counts, rank)
        assert (rows.shape, head.shape) == ((30, rank), (D, rank))
        error = np.linalg.norm(counts @ (table - rows @ head.T))
        kept = np.linalg.svd(counts @ table, compute_uv=False)
        assert error == pytest.approx(np.sqrt((kept[rank:] ** 2).sum()), abs=1e-6)


def test_at_its_rank_a_table_of_the_fitted_texts_alone_scores() -> None:
    """At full rank it is the choice itself; at a lower one the table, solved by hand without the held-out texts."""
    parts = Parts.of(static_tokenizer(CAPTIONS, 200))
    random = np.random.default_rng(0)
    rows = scipy.sparse.csr_matrix(random.poisson(0.3, size=(80, len(parts.is_pair))).astype(np.float32))
    u = unit(random.normal(size=(80, D)))
    texts = gathered(rows, np.hstack([u, u]), 30)
    gallery = Gallery.of(gathered(u, np.hstack([u, u]), 30), texts, D)
    config = ClosedFormConfig(alphas=[0.8])
    chosen = choose_table(texts, parts.is_pair, config, gallery.of_texts, D)
    whole = at_rank(texts, parts.is_pair, chosen, D, gallery.of_texts)
    np.testing.assert_allclose(whole.embeddings, chosen.embeddings, atol=1e-5)
    low = at_rank(texts, parts.is_pair, chosen, 2, gallery.of_texts)
    x = rows.toarray()[30:].astype(np.float64)
    table = np.linalg.solve(x.T @ x + chosen.settings["ridge"] * np.eye(x.shape[1]), x.T @ (1.8 * u[30:]))
    _, _, axes = np.linalg.svd(x @ table)
    np.testing.assert_allclose(low.embeddings, rows[:30] @ table @ axes[:2].T @ axes[:2], atol=1e-4)
    assert low.rsum == gallery.of_texts(low.embeddings)
    assert low.settings == chosen.settings
