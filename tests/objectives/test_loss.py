from __future__ import annotations

import torch

from distilvl.objectives.loss import in_batch_negatives, same_image

IDS = torch.tensor([4, 7, 4])


def test_same_image_compares_every_row_with_every_entry():
    assert same_image(IDS, torch.tensor([4, -1])).tolist() == [[True, False], [False, False], [True, False]]


def test_negatives_are_rows_of_other_images():
    assert in_batch_negatives(IDS).tolist() == [
        [False, True, False],
        [True, False, True],
        [False, True, False],
    ]


def test_unmasked_negatives_are_all_other_rows():
    assert torch.equal(in_batch_negatives(IDS, mask_false_negatives=False), ~torch.eye(3, dtype=torch.bool))
