"""The student as training needs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.training.materials import SharedInputs

CAPTIONS = ["a red circle", "a small green star above a blue square", "two hearts", "grey", "a star and a circle"]


@pytest.mark.parametrize("at_a_time", [1, 2, 5, 9])
def test_captions_are_the_same_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    encoder = DualEncoder(build_student(load_config("demo", student="demo").student, 8, CAPTIONS))
    one_by_one = [encoder.tokenize([caption])[0] for caption in CAPTIONS]
    monkeypatch.setattr("distilvl.students.dual_encoder._CAPTIONS_AT_A_TIME", at_a_time)
    packed = encoder.tokenize_all(CAPTIONS)
    assert [packed[row].tolist() for row in range(len(packed))] == encoder.tokenize(CAPTIONS) == one_by_one
    assert len(encoder.tokenize_all([])) == 0


def test_a_frozen_tower_may_have_batch_norms(student_yaml: Path, tmp_path: Path) -> None:
    for k in range(4):
        Image.new("RGB", (32, 32), (60 * k, 0, 0)).save(tmp_path / f"{k}.png")
    lines = ["image,caption,split", *(f"{k}.png,red number {k},train" for k in range(4))]
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    resnet = "{model_type: resnet, embedding_size: 4, hidden_sizes: [4, 8], depths: [1, 1], layer_type: basic}"
    override = f"student.image={{config: {resnet}, size: 32, pooling: pooler, frozen: true}}"
    config = load_config("paper", student=str(student_yaml), overrides=[override]).student
    encoder = DualEncoder(build_student(config, 12, ["red number 0 1 2 3"]))
    encoder.freeze(*config.frozen)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    pooled = SharedInputs().materials(str(tmp_path), "train", encoder, None, fabric).pooled_images
    assert pooled is not None
    assert np.asarray(pooled).shape == (4, 8)
    before = encoder.tower_fingerprint("image")
    assert encoder.tower_fingerprint("image") == before
    encoder.train()
    encoder.encode_images(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))  # moves the running means
    assert encoder.tower_fingerprint("image") != before
