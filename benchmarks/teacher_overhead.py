"""What asking a teacher through distilvl costs over its bare forward pass on the same batches.

    python benchmarks/teacher_overhead.py --data PHOTOS [--split test] [--teacher TEACHER] [--images 256]
        [--captions 5] [--rounds 3] [--json FILE]

TEACHER is a model that runs here (transformers, beit3:..., open_clip:...; a CLIP ViT-B/32 with random weights unless
given), or any other, of which the bare call is timed where the network alone cannot be reached. One process times, for
images and for captions,

    forward   the network on inputs that lie on its device already, and its rows brought back; or the bare call of
              `encode_...` on decoded images or texts
    prepare   resizing images or splitting texts into tokens, one batch after the other (0 where it is in `forward`)
    asked     `extract_features`: reading, hashing, decoding, preparing, asking, and writing the store

The batches of all three are the same: those that `extract_features` makes. Each shape of batch passes once before the
clock starts. Then rounds of `forward` and `asked` take turns, so that other work on the machine hits both. `ratio` is
asked / forward, which should be at most 1.05; `cpu_ratio` is that of the seconds of processor time which this process
took in all its threads, and which hardly depend on other work.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.records import PairDataset
from distilvl.extraction import extract_features
from distilvl.models import load_teacher
from distilvl.teachers.base import Teacher
from distilvl.teachers.torch_teacher import TorchTeacher


class Clock:
    """Seconds spent in its `with` blocks: by the clock on the wall, and of processor time in all threads."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]


class Recorder:
    """A teacher that notes what it is asked, call by call, and answers as the teacher does."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.name, self.revision, self.dim = teacher.name, teacher.revision, teacher.dim
        self.preprocessing = getattr(teacher, "preprocessing", "")
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


def bare(teacher: Teacher, calls: list[list[Any]], modality: str) -> tuple[Clock, Clock]:
    """Time of the forward passes, and of preparing their inputs."""
    forward, prepare = Clock(), Clock()
    if not isinstance(teacher, TorchTeacher):
        encode = teacher.encode_images if modality == "image" else teacher.encode_texts
        for call in calls:
            with forward:
                encode(call)
        return forward, prepare
    make, network = {
        "image": (teacher.prepare_images, teacher.image_features),
        "text": (teacher.prepare_texts, teacher.text_features),
    }[modality]
    size = teacher._batch_size
    with torch.inference_mode():
        for batch in (call[start : start + size] for call in calls for start in range(0, len(call), size)):
            with prepare:
                inputs = make(batch)
            inputs = teacher.to_device(inputs)
            with forward:
                network(inputs).float().cpu()
    return forward, prepare


def asked(teacher: Teacher, data: PairDataset, modality: str, full: Path, folder: Path) -> Clock:
    """Time of `extract_features` into `folder`, which has all that the store `full` has but one modality."""
    shutil.copytree(full, folder, ignore=shutil.ignore_patterns(f"{modality}-*"))
    with Clock() as clock:
        extract_features(teacher, data, folder)
    return clock


def measure(teacher: Teacher, data: PairDataset, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"teacher": teacher.name, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        recorder, full = Recorder(teacher), Path(folder, "full")
        extract_features(recorder, data, full)
        for modality, calls in (("image", recorder.images), ("text", recorder.texts)):
            times = []
            for number in range(rounds):
                forward, prepare = bare(teacher, calls, modality)
                whole = asked(teacher, data, modality, full, Path(folder, f"{modality}-{number}"))
                times.append(
                    {
                        "forward_s": forward.wall,
                        "prepare_s": prepare.wall,
                        "asked_s": whole.wall,
                        "ratio": whole.wall / forward.wall,
                        "cpu_ratio": whole.cpu / forward.cpu,
                    }
                )
            figures = {name: [round(time[name], 3) for time in times] for name in times[0]}
            result[modality] = {"items": sum(map(len, calls)), "rounds": figures}
    return result


def first_images(data: PairDataset, images: int, captions: int) -> PairDataset:
    """The first `images` records, each with at most `captions` captions."""
    return PairDataset(
        data.name,
        tuple(
            replace(record, captions=record.captions[:captions], given_ids=record.caption_ids[:captions])
            for record in data.records[:images]
        ),
    )


def report(result: dict[str, Any]) -> None:
    print(f"{result['teacher']}, {result['threads']} threads")
    for modality in ("image", "text"):
        print(f"{modality}: {result[modality]['items']} items")
        for name, values in result[modality]["rounds"].items():
            rounds = " ".join(f"{value:9.3f}" for value in values)
            print(f"    {name:10} median {median(values):9.3f}   rounds {rounds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--teacher")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--captions", type=int, default=5, help="captions an image, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        teacher = load_teacher(given.teacher or random_clip(Path(folder)))
        data = first_images(load_dataset(given.data).split(given.split), given.images, given.captions)
        result = measure(teacher, data, given.rounds)
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    report(result)


if __name__ == "__main__":
    main()
