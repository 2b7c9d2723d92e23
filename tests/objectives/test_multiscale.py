from __future__ import annotations

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.objectives import (
    EMPTY,
    LOSSES,
    ContrastiveDistillation,
    FeatureDistillation,
    HardNegativeDistillation,
    InfoNCE,
    MultiscaleObjective,
    SimilarityDistillation,
)
from distilvl.objectives.balancers import PaperBalancer
from distilvl.objectives.baselines import SoftTargetDistillation

BASELINES = {name: loss for name, loss in LOSSES.shipped.items() if ".baselines." in loss.__module__}
PAIRLESS = [name for name, loss in LOSSES.shipped.items() if not loss.needs_pairs]

IDS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def rows(unit_rows):
    return tuple(unit_rows(4, 5, seed) for seed in (1, 2, 3, 4))


@pytest.fixture
def filled(unit_rows):
    objective = MultiscaleObjective(5, queue_size=6)
    objective.fill(unit_rows(6, 5, 8), torch.arange(6), unit_rows(9, 5, 9), torch.arange(9))
    return objective


def test_each_loss_is_summed_over_the_modalities(rows, filled):
    z_image, z_text, u_image, u_text = rows
    losses = filled(*rows, IDS)
    cd, fd, sd = ContrastiveDistillation(), FeatureDistillation(), SimilarityDistillation()
    image_queue, text_queue = filled.image_queue, filled.text_queue
    expected = {
        "cd": cd(z_image, u_image, image_queue, IDS) + cd(z_text, u_text, text_queue, IDS),
        "fd": fd(z_image, u_image) + fd(z_text, u_text),
        "sd": sd(z_image, u_image) + sd(z_text, u_text),
        "hnd": HardNegativeDistillation()(*rows, IDS),
    }
    assert list(losses) == ["cd", "fd", "sd", "hnd"]
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]), name


def test_settings_reach_the_losses(rows):
    objective = MultiscaleObjective(
        5,
        [
            SimilarityDistillation(halved=False),
            HardNegativeDistillation(margin=0.3, reduction="mean"),
            InfoNCE(0.5),
        ],
    )
    losses = objective(*rows, IDS)
    plain = MultiscaleObjective(5, ("sd",))(*rows, IDS)
    torch.testing.assert_close(losses["sd"], 2 * plain["sd"])
    assert torch.equal(losses["hnd"], HardNegativeDistillation(0.3, reduction="mean")(*rows, IDS))
    assert torch.equal(losses["infonce"], InfoNCE(0.5)(rows[0], rows[1], IDS))


def test_update_puts_each_modality_in_its_own_queue(rows):
    objective = MultiscaleObjective(5, queue_size=6)
    objective.fill(rows[2], IDS, rows[3], IDS)
    torch.testing.assert_close(objective.image_queue.features[:4], rows[2].float())
    torch.testing.assert_close(objective.text_queue.features[:4], rows[3].float())
    assert objective.image_queue.ids.tolist() == [0, 1, 2, 1, -1, -1]


def test_state_dict_carries_the_queues(filled):
    other = MultiscaleObjective(5, queue_size=6)
    other.load_state_dict(filled.state_dict())
    assert torch.equal(other.text_queue.features, filled.text_queue.features)
    assert other.text_queue.pointer == filled.text_queue.pointer


def test_without_cd_no_queue_is_kept(rows):
    objective = MultiscaleObjective(5, ("fd",))
    objective.fill(rows[2], IDS, rows[3], IDS)
    assert int((objective.image_queue.ids != EMPTY).sum()) == 0


def test_infonce_alone_needs_no_teacher(rows):
    objective = MultiscaleObjective(5, ("infonce",))
    assert not objective.needs_teacher
    assert list(objective(rows[0], rows[1], None, None, IDS)) == ["infonce"]


def test_bad_input_is_named(rows):
    with pytest.raises(DistilvlError, match=r"'mse'.*cd, fd, sd, hnd"):
        MultiscaleObjective(5, ("cd", "mse"))
    with pytest.raises(DistilvlError, match="no loss"):
        MultiscaleObjective(5, ())
    with pytest.raises(DistilvlError, match="no teacher features"):
        MultiscaleObjective(5)(rows[0], rows[1], None, None, IDS)
    with pytest.raises(DistilvlError, match=r"\(4, 3\).*\(4, 5\).*dimension"):
        MultiscaleObjective(5)(rows[0], rows[1], rows[2][:, :3], rows[3], IDS)


def test_a_step_whose_hnd_is_zero_leaves_the_next_one_sound(unit_rows):
    """Student = teacher makes HND exactly 0; then the student moves away again."""
    objective, balancer = MultiscaleObjective(5, queue_size=8), PaperBalancer()
    u = unit_rows(4, 5, 1)
    ids = torch.arange(4)
    objective.fill(unit_rows(8, 5, 3), torch.arange(10, 18), unit_rows(8, 5, 4), torch.arange(10, 18))
    for z in (unit_rows(4, 5, 5), u.clone(), unit_rows(4, 5, 6)):
        z.requires_grad_()
        losses = objective(z, z, u, u, ids)
        weights = balancer(losses)
        sum(weights[name] * losses[name] for name in losses).backward()
        assert z.grad.isfinite().all()
        assert sum(balancer.report["weight"].values()) == pytest.approx(4)
    assert losses["hnd"] > 0
    assert balancer.report["rate"]["hnd"] == 1


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_losses_of_other_systems_are_called_by_name(name, rows, unit_rows):
    objective = MultiscaleObjective(5, ("infonce", name), queue_size=6)
    objective.fill(unit_rows(6, 5, 8), torch.arange(6), unit_rows(6, 5, 9), torch.arange(6))
    losses = objective(*rows, IDS)
    z_image, z_text, u_image, u_text = rows
    alone = BASELINES[name]()
    if name == "crd":
        expected = alone(z_image, u_image, objective.image_queue, IDS) + alone(
            z_text, u_text, objective.text_queue, IDS
        )
    else:
        expected = alone(*rows, IDS)
    assert list(losses) == ["infonce", name]
    assert torch.equal(losses[name], expected)


def test_settings_of_other_systems_reach_them_and_only_queue_readers_keep_a_queue(rows):
    objective = MultiscaleObjective(5, [SoftTargetDistillation(0.5)], queue_size=6)
    assert torch.equal(objective(*rows, IDS)["kd"], SoftTargetDistillation(0.5)(*rows, IDS))
    assert len(objective.image_queue.ids) == 0
    assert len(MultiscaleObjective(5, ("crd",), queue_size=6).image_queue.ids) == 6


def test_without_pairs_each_modality_has_its_own_ids(unit_rows):
    objective = MultiscaleObjective(5, PAIRLESS, queue_size=6)
    objective.fill(unit_rows(6, 5, 8), torch.arange(6), unit_rows(6, 5, 9), torch.arange(6) + 10)
    z_image, u_image, z_text, u_text = unit_rows(4, 5, 1), unit_rows(4, 5, 2), unit_rows(3, 5, 3), unit_rows(3, 5, 4)
    text_ids = torch.tensor([11, 12, 13])
    losses = objective(z_image, z_text, u_image, u_text, IDS, text_ids)
    cd = ContrastiveDistillation()
    image, text = objective.image_queue, objective.text_queue
    assert torch.equal(losses["cd"], cd(z_image, u_image, image, IDS) + cd(z_text, u_text, text, text_ids))
    assert torch.equal(losses["hnd"], HardNegativeDistillation()(z_image, z_text, u_image, u_text, IDS, text_ids))
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("name", sorted(set(LOSSES.shipped) - set(PAIRLESS)))
def test_a_loss_that_needs_pairs_says_so(name, rows):
    with pytest.raises(DistilvlError, match=f"{name}.*needs images with their captions"):
        MultiscaleObjective(5, ("fd", name))(*rows, IDS, IDS + 10)
