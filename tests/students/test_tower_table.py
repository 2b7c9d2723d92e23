"""The table of docs/towers.md: every tower is trained, saved and loaded, or refused in one line.

`DISTILVL_WRITE_TABLES=1 pytest tests/students/test_tower_table.py` writes it anew.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig

import distilvl
from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.extraction import extract_features
from distilvl.students.storage import route
from distilvl.training.sources import StepInputs
from distilvl.training.trainer import Trainer

DOCUMENT = Path(__file__).parents[2] / "docs" / "towers.md"
START, END = "<!-- made by tests/students/test_tower_table.py -->", "<!-- end -->"
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")

IMAGES = {
    "ViT": "mean",
    "DeiT": "mean",
    "BEiT": "pooler",
    "BEiT, shared bias": "mean",
    "Data2Vec vision": "mean",
    "DINOv2": "pooler",
    "DINOv2 with registers": "mean",
    "DINOv3": "mean",
    "ViT-MSN": "mean",
    "ViT, not square": "mean",
    "CLIP": "pooler",
    "SigLIP": "pooler",
    "Chinese-CLIP": "pooler",
    "AltCLIP": "mean",
    "CLIPSeg": "pooler",
    "OWL-ViT": "pooler",
    "BLIP": "mean",
    "ALIGN": "pooler",
    "ViT and BERT as one": "mean",
    "ConvNeXt": "pooler",
    "ConvNeXt V2": "pooler",
    "ResNet": "pooler",
    "RegNet": "pooler",
    "BiT": "pooler",
    "Swin": "pooler",
    "Swin V2": "pooler",
    "FocalNet": "pooler",
    "MobileViT": "pooler",
    "MobileViT V2": "mean",
    "MobileNet V1": "pooler",
    "MobileNet V2": "pooler",
    "EfficientNet": "pooler",
    "PVT": "mean",
    "PVT V2": "mean",
    "SegFormer": "mean",
    "PoolFormer": "mean",
    "LeViT": "pooler",
    "SigLIP 2": "mean",
    "X-CLIP": "mean",
    "ViT-MAE": "mean",
    "VideoMAE": "mean",
    "YOLOS": "mean",
}
TEXTS = {
    "BERT": "pooler",
    "RoBERTa": "mean",
    "XLM-R": "mean",
    "CamemBERT": "mean",
    "DistilBERT": "mean",
    "ALBERT": "pooler",
    "MPNet": "mean",
    "ELECTRA": "cls",
    "DeBERTa-v2": "mean",
    "ModernBERT": "cls",
    "Nomic BERT": "mean",
    "MobileBERT": "pooler",
    "ConvBERT": "mean",
    "Longformer": "mean",
    "BigBird": "mean",
    "FNet": "mean",
    "XLNet": "mean",
    "T5": "mean",
    "T5 with its decoder": "mean",
    "mT5": "mean",
    "UMT5": "mean",
    "LongT5": "mean",
    "GPT-2": "mean",
    "Llama": "mean",
    "Qwen3": "mean",
    "CLIP": "pooler",
    "SigLIP": "mean",
    "SigLIP 2": "mean",
    "Chinese-CLIP": "mean",
    "AltCLIP": "mean",
    "X-CLIP": "mean",
    "CLIPSeg": "mean",
    "OWL-ViT": "mean",
    "BLIP": "mean",
    "ALIGN": "mean",
    "ViT and BERT as one": "mean",
    "CANINE": "mean",
    "BART": "mean",
    "Whisper": "mean",
}
TOWERS = [("image", name, pooling) for name, pooling in IMAGES.items()]
TOWERS += [("text", name, pooling) for name, pooling in TEXTS.items()]

Tower = Callable[[str], Path]


def caption(k: int) -> str:
    return " ".join(f"{(7 * k + 5 * j) % 40}" for j in range(2 + k % 3)) + (" dog" if k % 2 else " word a picture")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> tuple[Path, Path]:
    """A dozen pictures, wide and tall, and a teacher's features of them."""
    folder = tmp_path_factory.mktemp("drawn")
    lines = []
    for k in range(12):
        image = Image.new("RGB", (48, 40) if k % 2 else (40, 60), COLOURS[k % 6])
        ImageDraw.Draw(image).rectangle((2 * k, k, 2 * k + 16, k + 24), fill=("white", "black")[k // 6])
        image.save(folder / f"{k}.png")
        split = "train" if k < 8 else "val"
        lines.append(json.dumps({"image": f"{k}.png", "captions": [caption(k)], "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    store = tmp_path_factory.mktemp("store") / "features"
    extract_features(teacher, load_dataset(folder), store)
    return folder, store


def settings(tower: Tower, modality: str, name: str, pooling: str) -> list[str]:
    """`--set` items of a student with that tower and a plain one for the other modality, at another image size."""
    towers = {"image": tower("ViT"), "text": tower("BERT"), modality: tower(name)}
    models = [f"{key}.model={folder}" for key, folder in towers.items()]
    return [*models, f"{modality}.pooling={pooling}", "image.size=64", "text.max_length=16"]


def reason(refused: Callable[[], object]) -> str | None:
    """Why that is refused, without where; none where it is not."""
    try:
        refused()
    except DistilvlError as error:
        return str(error)
    return None


def row(tower: Tower, drawn: tuple[Path, Path], out: Path, modality: str, name: str, pooling: str) -> str:
    """One row of the table, after checking all that it says."""
    folder = tower(name)
    given = settings(tower, modality, name, pooling)
    trained: list[SentenceTransformer] = []

    def train() -> None:
        short = ["training.epochs=1", "training.batch_size=4", "training.precision=fp32"]
        overrides = [*short, *(f"student.{item}" for item in given)]
        student = distilvl.train(data=drawn[0], features=drawn[1], student="tiny", out=out, overrides=overrides)
        trained.append(student)

    refused = reason(train)
    kind = AutoConfig.from_pretrained(folder).model_type
    if refused is not None:
        assert "\n" not in refused
        assert not (out / "metrics.jsonl").is_file(), f"{name} after training began: {refused}"
        why = refused.replace(str(folder), name).replace("|", "/")
        return f"| {name} | `{kind}` | `{pooling}` | refused: {why} | | |"
    student = trained[0]
    untrained = distilvl.build_student("tiny", 8, overrides=given)
    assert any(
        not np.array_equal(new.detach(), old.detach())
        for new, old in zip(
            route(student, modality)[0].parameters(), route(untrained, modality)[0].parameters(), strict=True
        )
    )
    pictures = [Image.open(path).convert("RGB") for path in sorted(drawn[0].glob("*.png"))]
    texts = [caption(k) for k in range(12)]
    loaded = SentenceTransformer(str(out / "student"), local_files_only=True)
    rows = [np.concatenate([model.encode(pictures), model.encode(texts)]) for model in (student, loaded)]
    assert np.abs(rows[0] - rows[1]).max() < 1e-6

    def builds(item: str) -> str:
        return "no" if reason(lambda: distilvl.build_student("tiny", 8, overrides=[*given, item])) else "yes"

    size = "" if modality == "text" else builds("image.size=null")
    return f"| {name} | `{kind}` | `{pooling}` | yes | {size} | {builds(f'{modality}.layers=2')} |"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_tower_trains_and_answers_alike_or_is_refused_in_one_line(
    tower: Tower, drawn: tuple[Path, Path], tmp_path: Path
) -> None:
    head = "| tower | model_type | pooling | trains | `size: null` | `layers: 2` |\n|---|---|---|---|---|---|\n"
    tables = []
    for modality in ("image", "text"):
        rows = [
            row(tower, drawn, tmp_path / f"{number}", kind, name, pooling)
            for number, (kind, name, pooling) in enumerate(TOWERS)
            if kind == modality
        ]
        tables.append(f"### {modality.capitalize()} towers\n\n{head}" + "\n".join(rows))
    table = "\n\n".join(tables)
    document = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = document.partition(START)
    written, _, after = rest.partition(END)
    if os.environ.get("DISTILVL_WRITE_TABLES"):
        DOCUMENT.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    else:
        assert written.strip() == table


def test_a_stopped_run_with_tied_weights_continues_to_the_same_bits(
    tower: Tower, drawn: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5's embeddings are one tensor under two names."""
    short = ["training.epochs=2", "training.batch_size=4", "training.precision=fp32", "training.checkpoint_every=1"]
    overrides = [*short, *(f"student.{item}" for item in settings(tower, "text", "T5", "mean"))]

    def train(out: Path) -> SentenceTransformer:
        return distilvl.train(data=drawn[0], features=drawn[1], student="tiny", out=out, overrides=overrides)

    whole, update, calls = train(tmp_path / "whole").state_dict(), Trainer.update, itertools.count(1)

    def stop(self: Trainer, inputs: StepInputs) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return update(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped")
    resumed = train(tmp_path / "stopped").state_dict()
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
