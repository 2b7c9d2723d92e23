from __future__ import annotations

import numpy as np
import pytest
import torch

from distilvl.data.left_out import LeftOut
from distilvl.objectives import EMPTY, NO_IMAGE
from distilvl.objectives.balancers import (
    DWABalancer,
    GradNormBalancer,
    OfficialBalancer,
    PaperBalancer,
    StaticBalancer,
    UncertaintyBalancer,
)
from distilvl.objectives.config import BalancerConfig, ObjectiveConfig
from distilvl.students.token_rows import TokenRows
from distilvl.training.materials import Materials
from distilvl.training.setup import build_balancer, build_objective, fill_queues
from distilvl.training.teacher_features import StoredFeatures, TeacherFeatures


@pytest.fixture
def train() -> Materials:
    """Six images of two captions each, known by their features alone."""
    random = np.random.default_rng(0)
    images, texts = (StoredFeatures(random.standard_normal((rows, 4)).astype(np.float16)) for rows in (6, 12))
    return Materials(
        dataset=None,  # type: ignore[arg-type]
        pixels=np.zeros((6, 3, 2, 2), np.uint8),
        tokens=TokenRows([[[1]] * 12]),
        pooled_images=None,
        pooled_texts=None,
        caption_image=np.repeat(np.arange(6), 2),
        teacher=TeacherFeatures(images, texts),
        left_out=LeftOut(),
    )


def test_a_stored_start_holds_real_features_with_their_images(train: Materials) -> None:
    objective = build_objective(ObjectiveConfig.model_validate({"cd": {"queue": 5}}), 4)
    fill_queues(objective, "stored", train, seed=0)
    images, texts = objective.image_queue, objective.text_queue
    assert train.teacher is not None
    assert torch.equal(images.features, train.teacher.images[images.ids.numpy()])
    for row, owner in zip(texts.features, texts.ids, strict=True):
        own = train.teacher.texts[slice(2 * int(owner), 2 * int(owner) + 2)]
        assert any(torch.equal(row, candidate) for candidate in own)


def test_an_empty_start_holds_nothing_and_a_random_one_unit_vectors_of_nobody(train: Materials) -> None:
    objective = build_objective(ObjectiveConfig.model_validate({"cd": {"queue": 50}}), 4)
    fill_queues(objective, "empty", train, seed=0)
    assert (objective.image_queue.ids == EMPTY).all()
    fill_queues(objective, "random", train, seed=0)
    for queue in (objective.image_queue, objective.text_queue):
        assert (queue.ids == NO_IMAGE).all()
        torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(50))
        assert queue.features.mean(dim=0).norm() < 0.3
    assert not torch.equal(objective.image_queue.features, objective.text_queue.features)


def test_random_vectors_are_negatives_of_every_row_even_when_masked(train: Materials) -> None:
    objective = build_objective(ObjectiveConfig.model_validate({"losses": ["cd"], "cd": {"queue": 8}}), 4)
    fill_queues(objective, "random", train, seed=0)
    rows = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    masked = objective(rows, rows, rows, rows, torch.tensor([0, 1, 2]))["cd"]
    objective.losses["cd"].mask_false_negatives = False
    assert torch.equal(masked, objective(rows, rows, rows, rows, torch.tensor([0, 1, 2]))["cd"])
    assert masked > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("paper", PaperBalancer),
        ("official", OfficialBalancer),
        ("dwa", DWABalancer),
        ("static", StaticBalancer),
        ("uncertainty", UncertaintyBalancer),
        ("gradnorm", GradNormBalancer),
    ],
)
def test_each_balancer_is_built_by_its_name(name: str, kind: type) -> None:
    assert type(build_balancer(BalancerConfig.model_validate({"name": name}))) is kind


def test_settings_reach_balancers_and_losses() -> None:
    balancer = build_balancer(BalancerConfig.model_validate({"name": "gradnorm", "alpha": 0.5, "lr": 0.01}))
    assert isinstance(balancer, GradNormBalancer)
    assert (balancer.alpha, balancer.lr) == (0.5, 0.01)
    config = ObjectiveConfig.model_validate(
        {
            "losses": ["kd", "dcd", "clipkd_relation", "clipkd_interactive", "crd", "openclip"],
            "kd": {"temperature": 0.11},
            "dcd": {"temperature": 0.12, "hard_negatives": 3, "alpha": 0.4},
            "clipkd": {"temperature": 0.13},
            "crd": {"temperature": 0.14},
            "openclip": {"temperature_student": 0.15, "temperature_teacher": 0.16},
        }
    )
    parts = build_objective(config, 4).losses
    assert parts["kd"].temperature == 0.11
    assert (parts["dcd"].temperature, parts["dcd"].hard_negatives, parts["dcd"].alpha) == (0.12, 3, 0.4)
    assert parts["clipkd_relation"].temperature == parts["clipkd_interactive"].temperature == 0.13
    assert parts["crd"].temperature == 0.14
    assert (parts["openclip"].temperature_student, parts["openclip"].temperature_teacher) == (0.15, 0.16)
