from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.objectives import LOSSES, MultiscaleObjective
from distilvl.objectives.multiscale import truncate, truncate_queue


def test_truncated_rows_are_unit_rows_of_the_first_columns(unit_rows):
    rows = unit_rows(4, 6, 0)
    narrow = truncate(rows, 2)
    torch.testing.assert_close(narrow.norm(dim=1), torch.ones(4, dtype=rows.dtype))
    torch.testing.assert_close(narrow, rows[:, :2] / rows[:, :2].norm(dim=1, keepdim=True))


@pytest.mark.parametrize("name", LOSSES.shipped)
def test_a_loss_is_its_mean_over_the_widths(unit_rows, name):
    ids = torch.arange(4)
    rows = [unit_rows(4, 6, seed) for seed in range(4)]
    queue = (unit_rows(8, 6, 8), torch.arange(8), unit_rows(8, 6, 9), torch.arange(8))
    nested = MultiscaleObjective(6, (name,), queue_size=8, dims=(3, 2))
    nested.fill(*queue)
    found = nested(*rows, ids)[name]
    alone = []
    for width in (6, 3, 2):
        objective = MultiscaleObjective(width, (name,), queue_size=8)
        objective.fill(truncate(queue[0], width), queue[1], truncate(queue[2], width), queue[3])
        alone.append(objective(*(F.normalize(x[:, :width], dim=1) for x in rows), ids)[name])
    torch.testing.assert_close(found, torch.stack(alone).mean())


def test_a_narrow_queue_keeps_its_ids(unit_rows):
    objective = MultiscaleObjective(6, ("cd",), queue_size=3)
    objective.fill(unit_rows(2, 6, 0), torch.tensor([5, 7]), unit_rows(2, 6, 1), torch.tensor([5, 7]))
    narrow = truncate_queue(objective.image_queue, 4)
    assert narrow.features.shape == (3, 4)
    assert narrow.ids.tolist() == objective.image_queue.ids.tolist()


@pytest.mark.parametrize("width", [0, 6, 9])
def test_a_width_that_is_not_below_the_full_one_is_refused(width):
    with pytest.raises(DistilvlError, match=rf"dims has {width}.*below the full dimension, 6"):
        MultiscaleObjective(6, ("sd",), dims=(width,))
