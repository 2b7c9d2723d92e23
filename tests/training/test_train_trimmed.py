"""`student.text.vocabulary=trim` in training: the numbers of a run, and the same bits when it is resumed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from tests.students.small_vocabularies import CAPTIONS, WORDS, tower

import distilvl
from distilvl.students import DualEncoder, load_student
from distilvl.training.sources import StepInputs
from distilvl.training.trainer import Trainer

QUICK = ["training.batch_size=8", "training.precision=fp32", "training.checkpoint_every=1", "training.epochs=2"]
VIT = """
image:
  config: {model_type: vit, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
           image_size: 32, patch_size: 8}
  size: 32
  pooling: mean
"""


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    for part in tower("RoBERTa"):
        part.save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta"


@pytest.fixture
def student(tmp_path: Path, text_folder: Path) -> Path:
    path = tmp_path / "trimmed.yaml"
    text = f"text: {{model: {text_folder}, max_length: 32, pooling: mean, layers: 1}}\n"
    path.write_text(VIT + text, encoding="utf-8")
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 pictures; half of the captions of val are of other words than those of train."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for k in range(24):
        Image.new("RGB", (32, 32), (10 * k, 250 - 10 * k, 99)).save(folder / f"{k}.png")
        split = "train" if k < 16 else "val"
        captions = [CAPTIONS[k % 16], CAPTIONS[k % 16] if k < 16 else f"{CAPTIONS[k % 16]} {WORDS[200 + k]}"]
        lines.append(json.dumps({"image": f"{k}.png", "captions": captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def train(pictures: Path, teacher: str, student: Path, out: Path, *more: str) -> SentenceTransformer:
    overrides = [*QUICK, "student.text.vocabulary=trim", *more]
    return distilvl.train(data=pictures, teacher=teacher, student=student, out=out, overrides=overrides)


@pytest.mark.parametrize("frozen", ["false", "true"])
def test_a_stopped_run_continues_to_the_same_bits(
    pictures: Path, teacher: str, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    more = f"student.text.frozen={frozen}"
    whole, update, calls = (
        train(pictures, teacher, student, tmp_path / "whole", more),
        Trainer.update,
        itertools.count(1),
    )

    def stop(self: Trainer, inputs: StepInputs) -> object:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return update(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            train(pictures, teacher, student, tmp_path / "stopped", more)
    resumed = train(pictures, teacher, student, tmp_path / "stopped", more).state_dict()
    expected = whole.state_dict()
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.items())


def test_the_result_and_the_card_tell(pictures: Path, teacher: str, student: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = train(pictures, teacher, student, out)
    table = trained[0].sub_modules["text"][0].model.get_input_embeddings().weight
    whole = len(tower("RoBERTa").tokenizer)
    told = json.loads((out / "result.json").read_text())["vocabulary"]
    assert told == {
        "entries_before": whole,
        "entries": len(table),
        "parameters_saved": (whole - len(table)) * 16,
        "share_cut_otherwise": pytest.approx(0.5, abs=0.25),
    }
    card = (out / "student" / "README.md").read_text()
    assert f"vocabulary trimmed from {whole} to {len(table)} entries" in card
    assert f"{100 * told['share_cut_otherwise']:.1f} % of the val captions are cut into other tokens" in card
    untrimmed = train(pictures, teacher, student, tmp_path / "whole", "student.text.vocabulary=2000")
    assert "vocabulary" not in json.loads((tmp_path / "whole" / "result.json").read_text())
    assert "trimmed" not in (tmp_path / "whole" / "student" / "README.md").read_text().split("The whole recipe")[0]
    fewer = sum(p.numel() for p in untrimmed.parameters()) - sum(p.numel() for p in trained.parameters())
    assert fewer == told["parameters_saved"]
    # The finished student is trained on as any other.
    next_run = distilvl.train(
        data=pictures, teacher=teacher, student=out / "student", out=tmp_path / "next", overrides=QUICK
    )
    assert DualEncoder(next_run).tokenize(CAPTIONS) == DualEncoder(load_student(out)).tokenize(CAPTIONS)


@pytest.mark.slow
def test_the_command(pictures: Path, teacher: str, student: Path, tmp_path: Path) -> None:
    arguments = ["--data", pictures, "--teacher", teacher, "--student", student, "--out", tmp_path / "run"]
    settings = [item for setting in (*QUICK, "student.text.vocabulary=trim") for item in ("--set", setting)]
    command = [sys.executable, "-m", "distilvl", "train", *map(str, arguments), *settings]
    for _ in range(2):  # the second time it is finished
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["vocabulary"]["entries"] < 500
    inputs = ["--data", pictures, "--teacher", teacher, "--student", "demo", "--out", tmp_path / "wrong"]
    wrong = subprocess.run(
        [*command[:4], *map(str, inputs), "--set", "student.text.vocabulary=trim"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert wrong.returncode != 0
    assert "only a pretrained tower's vocabulary is trimmed" in wrong.stderr
    assert "Traceback" not in wrong.stderr
