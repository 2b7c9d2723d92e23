"""The same numbers as two published tools give on tie-free features; docs/evaluation.md says how they were run."""

from __future__ import annotations

import numpy as np
import pytest

from distilvl.evaluation.protocols import retrieve

# Seed, images, captions an image (0: one to seven), noise; then R@1, R@5, R@10 image->text and text->image, on which
# CLIP_benchmark 1.6.2 (recall_at_k) and eccv-caption 0.1.0 (compute_r_at_k) agree; then the latter's R-Precision and
# mAP@R image->text (compute_eccv_metrics).
CASES = [
    ((0, 50, 5, 1.0), [96.0, 100.0, 100.0, 84.0, 98.0, 99.2], [79.2, 75.366667]),
    ((1, 200, 5, 2.0), [34.0, 62.5, 78.0, 18.2, 43.0, 58.3], [19.6, 13.8]),
    ((2, 120, 1, 1.5), [43.333333, 75.0, 81.666667, 45.0, 74.166667, 85.0], [43.333333, 43.333333]),
    ((3, 150, 0, 2.5), [17.333333, 50.666667, 60.0, 12.351946, 38.409475, 50.930626], [12.244444, 7.77963]),
    ((4, 300, 0, 1.0), [75.0, 93.333333, 95.0, 64.811644, 86.900685, 93.065068], [60.296032, 56.049443]),
]


def tie_free_gallery(seed, images, captions, noise, width=16):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((images, width)).astype(np.float32)
    counts = np.full(images, captions) if captions else rng.integers(1, 8, images)
    owner = np.repeat(np.arange(images), counts)
    return rows, rows[owner] + noise * rng.standard_normal((len(owner), width)).astype(np.float32), owner


@pytest.mark.parametrize(("case", "recalls", "precision"), CASES)
def test_same_numbers(case, recalls, precision):
    found = retrieve(*tie_free_gallery(*case))
    ways = (found.score.image_to_text, found.score.text_to_image)
    assert [getattr(way, r) for way in ways for r in ("r1", "r5", "r10")] == pytest.approx(recalls, abs=1e-6)
    assert [found.precision[0].r_precision, found.precision[0].map_at_r] == pytest.approx(precision, abs=1e-6)
