"""`distilvl demo`: distil the embedded teacher on `scenes` and put both side by side."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from distilvl.data import load_dataset
from distilvl.data.records import PairDataset
from distilvl.evaluation.evaluate import Evaluation, evaluate
from distilvl.extraction import extract_features
from distilvl.io.progress import median_ms
from distilvl.pictures import decode_image
from distilvl.students import count_parameters
from distilvl.teachers.demo_network import DemoTeacher
from distilvl.training.train import train

logger = logging.getLogger("distilvl")

_TIMED_ITEMS = 64
_REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """Milliseconds an item in batches of 64, preprocessing included, median of five."""

    image_ms: float
    caption_ms: float


@dataclass(frozen=True)
class DemoResult:
    """Teacher and student on the 1,000 test scenes, each as a pair; `seconds` is the wall time of this call."""

    evaluation: Evaluation
    parameters: tuple[int, int]
    speed: tuple[Speed, Speed]
    seconds: float
    out: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers; `parameters`, `image_ms` and `caption_ms` for teacher and student in turn."""
        return {
            **self.evaluation.as_dict(),
            "parameters": list(self.parameters),
            "image_ms": [round(speed.image_ms, 3) for speed in self.speed],
            "caption_ms": [round(speed.caption_ms, 3) for speed in self.speed],
            "seconds": round(self.seconds, 1),
        }


def run_demo(out: Path) -> DemoResult:
    """Features, training, scoring; what a former call finished in `out` is not done again."""
    started = time.monotonic()
    logger.info("1/3  extracting the teacher's embeddings of 4,500 images and their captions, then training a student")
    student = train(teacher="demo", data="scenes", student="demo", recipe="demo", out=out)
    logger.info("2/3  scoring both on 1,000 test scenes")
    dataset = load_dataset("scenes")
    extract_features("demo", dataset.split("test"), out / "features")
    evaluation = evaluate(out, dataset, split="test")
    logger.info("3/3  timing both")
    teacher = DemoTeacher()
    parameters = teacher.num_parameters, count_parameters(student)
    speed = _speeds(teacher, student, dataset.split("test"))
    return DemoResult(evaluation, parameters, speed, time.monotonic() - started, out)


def _speeds(teacher: DemoTeacher, student: SentenceTransformer, dataset: PairDataset) -> tuple[Speed, Speed]:
    images = [decode_image(record.image.read(), record.image.name) for record in dataset[:_TIMED_ITEMS]]
    captions = [record.captions[0] for record in dataset[:_TIMED_ITEMS]]

    def encode(items: Sequence[str | Image.Image]) -> None:
        student.encode(list(items), batch_size=_TIMED_ITEMS, show_progress_bar=False)

    def an_item(encode: Callable[[Any], object], items: Sequence[Any]) -> float:
        return median_ms(encode, [items] * (_REPEATS + 1)) / len(items)

    of_teacher = Speed(an_item(teacher.encode_images, images), an_item(teacher.encode_texts, captions))
    return of_teacher, Speed(an_item(encode, images), an_item(encode, captions))


def print_demo(result: DemoResult, console: Console) -> None:
    """The table, and what to do next."""
    table = Table(title=f"1,000 test scenes, 5 captions each ({result.seconds:.0f} s)")
    for name in ("", "teacher", "student"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("parameters", *(f"{count:,}" for count in result.parameters))
    table.add_row("ms an image", *(f"{speed.image_ms:.2f}" for speed in result.speed))
    table.add_row("ms a caption", *(f"{speed.caption_ms:.2f}" for speed in result.speed))
    evaluation = result.evaluation
    scores = [score.as_dict() for score in (evaluation.teacher, evaluation.student) if score is not None]
    for direction, label in (("image_to_text", "image -> text"), ("text_to_image", "text -> image")):
        for k in ("r1", "r5", "r10"):
            table.add_row(f"{label} R@{k[1:]}", *(f"{score[direction][k]:.1f}" for score in scores))
    table.add_row("RSUM", *(f"{score['rsum']:.1f}" for score in scores), style="bold")
    console.print(table)
    share = result.parameters[1] / result.parameters[0]
    if evaluation.retention is not None:
        console.print(f"Retention: {100 * evaluation.retention:.1f} % of the teacher's RSUM", end=" ")
        console.print(f"with {100 * share:.1f} % of its parameters.")
    if evaluation.hard_negatives is not None:
        console.print(f"It tells {evaluation.hard_negatives:.1f} % of captions from ones wrong in a single detail.")
    console.print(f'Use it: SentenceTransformer("{result.out}/student").encode(["a red circle above a blue square"])')
