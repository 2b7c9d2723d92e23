"""What asking a teacher through distilvl costs over its bare forward pass on the same batches.

    python benchmarks/teacher_overhead.py --data PHOTOS [--split test] [--teacher TEACHER] [--images 256] [--json FILE]

TEACHER is a model that runs here (transformers, beit3:..., open_clip:...); a CLIP ViT-B/32 with random weights unless
given. One process, one run, which times

    forward   the network on inputs that lie on its device already, and its rows brought back
    prepare   resizing images and splitting texts into tokens, one after the other
    asked     `extract_features`: reading, decoding, hashing, preparing, asking, and writing the store

The batches of all three are the same: those that `extract_features` makes. Before the clock starts, each shape of batch
has passed once. `asked / forward` is the ratio that should be at most 1.05.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from distilvl.data import load_dataset
from distilvl.data.records import PairDataset
from distilvl.features.extract import extract_features
from distilvl.teachers import load_teacher
from distilvl.teachers.torch_teacher import TorchTeacher


class Recorder:
    """A teacher that notes what it is asked, call by call, and answers as the teacher does."""

    def __init__(self, teacher: TorchTeacher) -> None:
        self.teacher = teacher
        self.name, self.revision, self.dim = teacher.name, teacher.revision, teacher.dim
        self.images: list[list[Image.Image]] = []
        self.texts: list[list[str]] = []

    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        self.images.append(list(images))
        return self.teacher.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        self.texts.append(list(texts))
        return self.teacher.encode_texts(texts)


def random_clip(folder: Path) -> str:
    """A CLIP ViT-B/32 of random weights with a tokenizer of single letters, saved to `folder`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    # The default sizes are those of ViT-B/32.
    CLIPModel(CLIPConfig(text_config={"eos_token_id": 1, "pad_token_id": 1})).save_pretrained(folder)
    letters = {letter: k for k, letter in enumerate(["<unk>", "<end>", *map(chr, range(33, 127))])}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<end>", unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)
    fields = {"image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return str(folder)


def batches(calls: list[list[Any]], size: int) -> Iterator[list[Any]]:
    for call in calls:
        for start in range(0, len(call), size):
            yield call[start : start + size]


def bare(
    teacher: TorchTeacher,
    calls: list[list[Any]],
    prepare: Callable[[Any], dict[str, Tensor]],
    forward: Callable[[dict[str, Tensor]], Tensor],
) -> tuple[float, float]:
    """Seconds of the forward passes, and of preparing their inputs."""
    spent_forward = spent_prepare = 0.0
    with torch.inference_mode():
        for batch in batches(calls, teacher._batch_size):
            start = time.perf_counter()
            inputs = prepare(batch)
            spent_prepare += time.perf_counter() - start
            inputs = teacher.to_device(inputs)
            forward(inputs).float().cpu()
            start = time.perf_counter()
            forward(inputs).float().cpu()
            spent_forward += time.perf_counter() - start
    return spent_forward, spent_prepare


def measure(teacher: TorchTeacher, data: PairDataset) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(teacher)
        extract_features(recorder, data, Path(folder, "warm"))
        images = bare(teacher, recorder.images, teacher.prepare_images, teacher.image_features)
        texts = bare(teacher, recorder.texts, teacher.prepare_texts, teacher.text_features)
        start = time.perf_counter()
        extract_features(teacher, data, Path(folder, "store"))
        asked = time.perf_counter() - start
    forward = images[0] + texts[0]
    return {
        "images": sum(map(len, recorder.images)),
        "texts": sum(map(len, recorder.texts)),
        "forward_images_s": images[0],
        "forward_texts_s": texts[0],
        "prepare_s": images[1] + texts[1],
        "asked_s": asked,
        "asked_to_forward": asked / forward,
        "asked_to_forward_and_prepare": asked / (forward + images[1] + texts[1]),
    }


def first_images(data: PairDataset, count: int) -> PairDataset:
    """The records of the first `count` images."""
    names = list(dict.fromkeys(record.image.name for record in data))[:count]
    kept = set(names)
    return PairDataset(data.name, tuple(record for record in data if record.image.name in kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--teacher")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        teacher = load_teacher(asked.teacher or random_clip(Path(folder)))
        if not isinstance(teacher, TorchTeacher):
            parser.error("--teacher must be a model that runs here and that is no SentenceTransformer")
        result = measure(teacher, first_images(load_dataset(asked.data).split(asked.split), asked.images))
    for name, value in result.items():
        print(f"{name:30} {value:12.3f}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
