from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distilvl
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config
from distilvl.students import DualEncoder
from distilvl.students.build import build_student
from distilvl.students.storage import route
from distilvl.students.trial import try_gradients, try_student

Tower = Callable[[str], Path]


def encoder_of(tower: Tower, *overrides: str, image: str = "ViT", text: str = "BERT") -> DualEncoder:
    items = [f"image.model={tower(image)}", f"text.model={tower(text)}", "image.size=32", *overrides]
    config = load_config("paper", student="tiny", overrides=[f"student.{item}" for item in items])
    return DualEncoder(build_student(config.student, 8))


@pytest.mark.parametrize(("text", "most"), [("BERT", 64), ("RoBERTa", 64), ("CLIP", 64), ("GPT-2", 64), ("MPNet", 64)])
def test_a_text_of_max_length_tokens_must_run(tower: Tower, text: str, most: int) -> None:
    """RoBERTa and MPNet have 66 rows of positions, two of which no text uses."""
    try_student(encoder_of(tower, f"text.max_length={most}", text=text), reload=False)
    with pytest.raises(
        DistilvlError, match=rf"max_length is {most + 1}, but it has {most} positions. Set .* to {most} "
    ):
        try_student(encoder_of(tower, f"text.max_length={most + 1}", text=text), reload=False)


@pytest.mark.parametrize(
    ("overrides", "towers", "reason"),
    [
        (["image.size=64"], {"image": "ViT-MAE"}, "something else of the same batch each time"),
        (["image.size=null"], {"image": "YOLOS"}, "inputs of different sizes"),
        (
            ["text.pooling=pooler"],
            {"text": "SigLIP"},
            "depends on the longer texts beside it. Set student.text.pooling",
        ),
        (["text.pooling=cls"], {"text": "GPT-2"}, "does not depend on its last word. Set student.text.pooling to mean"),
    ],
)
def test_what_would_train_to_nothing_is_refused(
    tower: Tower, overrides: list[str], towers: dict[str, str], reason: str
) -> None:
    with pytest.raises(DistilvlError, match=reason):
        try_student(encoder_of(tower, *overrides, **towers))


@pytest.mark.parametrize(
    "fields",
    [{"image_mean": 0.5, "image_std": 0.5}, {"do_rescale": False, "do_normalize": False}, {"do_normalize": False}],
)
def test_odd_settings_of_a_processor_are_trained_as_they_are_encoded(
    tower: Tower, tmp_path: Path, fields: dict[str, object]
) -> None:
    """One number for all channels, and pixels that stay whole numbers."""
    folder = shutil.copytree(tower("ViT"), tmp_path / "odd")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    encoder = encoder_of(lambda name: folder if name == "ViT" else tower(name))
    try_student(encoder, reload=False)
    picture = Image.effect_noise((32, 32), 60).convert("RGB")
    ours = encoder.encode_images(torch.from_numpy(encoder.resize([picture])))[0].detach().numpy()
    np.testing.assert_allclose(ours, encoder.student.encode([picture])[0], atol=1e-5)


def test_weights_that_are_not_finite_are_refused(tower: Tower) -> None:
    encoder = encoder_of(tower)
    next(route(encoder.student, "image")[0].parameters()).data.fill_(float("nan"))
    with pytest.raises(DistilvlError, match=r"the image tower .* its features are not finite"):
        try_student(encoder)


def test_a_student_that_changes_when_it_is_saved_is_refused(tower: Tower, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(tower)
    save = type(encoder.student).save

    def spoil(student: torch.nn.Module, *args: object, **kwargs: object) -> None:
        weights = next(route(student, "text")[0].parameters())  # type: ignore[arg-type]
        weights.data.mul_(-1)
        save(student, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(encoder.student), "save", spoil)
    with pytest.raises(DistilvlError, match=r"the text tower .* saved and loaded again it makes something else"):
        try_student(encoder)


def test_gradients_must_reach_a_tower_that_learns(tower: Tower) -> None:
    encoder = encoder_of(tower)
    try_gradients(encoder)
    image = route(encoder.student, "image")[0]
    image.requires_grad_(False)
    with pytest.raises(DistilvlError, match=r"the image tower .* none of its weights learns"):
        try_gradients(encoder)
    encoder.freeze("image")
    try_gradients(encoder)
    text = route(encoder.student, "text")[0].model
    text.embeddings.register_forward_hook(lambda module, given, rows: rows.detach())
    text.encoder.register_forward_hook(lambda module, given, rows: [rows[0].detach()])
    with pytest.raises(DistilvlError, match=r"the text tower .* cannot be trained|no gradient reaches"):
        try_gradients(encoder)


def test_a_tower_most_of_which_is_idle_is_refused(tower: Tower) -> None:
    encoder = encoder_of(tower)
    route(encoder.student, "text")[0].model.idle = torch.nn.Linear(200, 200)
    with pytest.raises(DistilvlError, match=r"\d+ % of its weights are never used, model.idle.weight among them"):
        try_gradients(encoder)


def test_the_student_and_the_random_numbers_are_left_as_they_were(tower: Tower) -> None:
    encoder = encoder_of(tower, "image.pooling=pooler", image="ResNet")
    route(encoder.student, "image")[0].train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    try_student(encoder)
    try_gradients(encoder)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(weight.grad is None for weight in encoder.parameters())


UNASKED = """
class Unasked:
    name, revision, dim = "unasked", "1", 8

    def encode_images(self, images):
        raise AssertionError("asked about images")

    def encode_texts(self, texts):
        raise AssertionError("asked about texts")
"""


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["student.text.max_length=65"], "max_length is 65, but it has 64 positions"),
        (["training.checkpoint_activations=true", "student.image.model=PVT"], "cannot compute its activations again"),
        (["student.image.model=BERT"], "no image processor|cannot be the image tower"),
    ],
)
def test_train_refuses_before_the_teacher_is_asked(
    tower: Tower, tmp_path: Path, capfd: pytest.CaptureFixture[str], overrides: list[str], reason: str
) -> None:
    teacher = tmp_path / "unasked.py"
    teacher.write_text(f"{UNASKED}\n", encoding="utf-8")
    items = [f"student.image.model={tower('ViT')}", f"student.text.model={tower('BERT')}", "student.image.size=32"]
    for item in overrides:
        key, _, value = item.partition("=")
        items.append(f"{key}={tower(value)}" if key.endswith("model") else item)
    for split in ("train", "val"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{split}.png")
    records = [{"image": f"{split}.png", "captions": ["a dog"], "split": split} for split in ("train", "val")]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    capfd.readouterr()
    with pytest.raises(DistilvlError, match=reason):
        distilvl.train(
            data=tmp_path, teacher=f"{teacher}:Unasked", student="tiny", out=tmp_path / "run", overrides=items
        )
    assert "transformers" not in capfd.readouterr().err
