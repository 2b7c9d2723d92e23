"""The files of a finished table: Markdown to read, CSV and JSON to reckon with, pictures for Figure 2."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.records import PAIRS, PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.cost import BATCH, StudentEncoder, measure_cost
from distilvl.evaluation.encode import encode_dataset
from distilvl.experiments import published
from distilvl.experiments.cells import Base, CellScore, Job, TableResult
from distilvl.experiments.figure2 import Integers, draw_figure2
from distilvl.experiments.published import CostRow, OurRow
from distilvl.experiments.rendering import to_csv, to_json, to_markdown
from distilvl.features import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.io.hashes import text_key
from distilvl.io.markdown import markdown_table
from distilvl.models import load_teacher
from distilvl.pictures import decode_image
from distilvl.students import load_student

Files = dict[str, str]  # text by file ending


@dataclass(frozen=True)
class Finished:
    """All that an output may be made of: scores, runs and what they share, folder, a teacher to be run."""

    result: TableResult
    jobs: tuple[Job, ...]
    base: Base
    out: Path
    teacher: str | None

    @property
    def first(self) -> Job:
        """The first run that is done; `DistilvlError` when there is none."""
        for job in self.jobs:
            if job.done:
                return job
        raise DistilvlError("no run of this table is finished.", "See failure.txt and log.txt in the folder `runs`.")

    def gallery(self) -> PairDataset:
        """The images and captions that students were scored on."""
        return load_dataset(self.base.data, skip_bad=self.base.skip_bad).split(self.base.split)

    def markdown(self, *parts: str) -> str:
        """The table as Markdown, and these parts below it."""
        return "\n\n".join([to_markdown(self.result).rstrip(), *parts])


def write_outputs(finished: Finished) -> tuple[tuple[Path, ...], str]:
    """Write `out/<table>.*`; returns the paths and the Markdown."""
    name = finished.result.spec.name
    texts = _MAKERS[finished.result.spec.output](finished)
    for ending, text in texts.items():
        write_atomically(finished.out / f"{name}.{ending}", text.encode())
    endings = [*texts, *(_DRAWN if finished.result.spec.output == "spaces" else ())]
    return tuple(finished.out / f"{name}.{ending}" for ending in endings), texts["md"]


def _rows(finished: Finished) -> Files:
    result = finished.result
    return {"md": to_markdown(result), "csv": to_csv(result), "json": _json(to_json(result))}


def _published(finished: Finished) -> Files:
    """Table 1: the mean over seeds of each cell as a row of ours among the published ones."""
    result = finished.result
    data = literature_name(finished.gallery())
    ours = [_our_row(cell.label, scores, data) for cell in result.spec.cells if (scores := result.scores[cell.name])]
    known = published.load_published()
    numbers = {**published.table1_json(known, ours), "runs": to_json(result)}
    md = finished.markdown(published.table1_markdown(known, ours))
    return {"md": md, "csv": published.table1_csv(known, ours), "json": _json(numbers)}


def _our_row(label: str, scores: tuple[CellScore, ...], data: str) -> OurRow:
    seeds = ", ".join(str(score.seed) for score in scores)
    recalls = np.mean([(score.image_to_text, score.text_to_image) for score in scores], axis=0).tolist()
    rsum = float(np.mean([score.rsum for score in scores]))
    return OurRow(label, tuple(recalls[0]), tuple(recalls[1]), rsum, data, f"mean over seeds {seeds}")


def literature_name(gallery: PairDataset) -> str:
    """What the gallery is called in the literature, where its name, size and ground truth say that it is the same."""
    known = {("flickr30k/test", 1000, PAIRS): "Flickr30k 1K test", ("coco/test", 5000, PAIRS): "COCO 5K test"}
    found = known.get((gallery.name.lower(), len(gallery), gallery.ground_truth))
    return found or f"{gallery.name}, {len(gallery)} images"


def _cost(finished: Finished) -> Files:
    """Table 3: the student of the first seed, and the teacher if it can be run."""
    result, gallery = finished.result, finished.gallery()
    images, captions = _sample(gallery, skip_bad=finished.base.skip_bad)
    cell = result.spec.cells[0]
    student = measure_cost(StudentEncoder(load_student(finished.first.folder / "student")), images, captions)
    asked = None if finished.teacher is None else measure_cost(load_teacher(finished.teacher), images, captions)
    manifest, rsum = FeatureStore.open(finished.base.features).manifest, [one.rsum for one in result.scores[cell.name]]
    rows = CostRow(manifest.teacher, asked, result.teacher_rsum), CostRow(cell.label, student, float(np.mean(rsum)))
    numbers = {**published.table3_json(*rows), "runs": to_json(result)}
    md = finished.markdown(published.table3_markdown(*rows))
    return {"md": md, "csv": published.table3_csv(*rows), "json": _json(numbers)}


def _sample(gallery: PairDataset, *, skip_bad: bool) -> tuple[list[Image.Image], list[str]]:
    images: list[Image.Image] = []
    for record in gallery:
        if len(images) == BATCH:
            break
        try:
            images.append(decode_image(record.image.read(), record.image.name))
        except BadImageError:
            if not skip_bad:
                raise
    return images, gallery.captions[:BATCH]


def _spaces(finished: Finished) -> Files:
    """Figure 2: the teacher's stored features and those of the first seed's student, on the same items."""
    gallery = finished.gallery()
    encoded = encode_dataset(load_student(finished.first.folder / "student"), gallery, skip_bad=finished.base.skip_bad)
    store = FeatureStore.open(finished.base.features)
    captions = encoded.dataset.captions
    names = [record.image.name for record in encoded.dataset]
    images = np.asarray(store.images(encoded.image_keys, names=names), np.float32)
    texts = np.asarray(store.texts([text_key(caption) for caption in captions], names=captions), np.float32)
    owner: Integers = np.asarray(encoded.dataset.caption_image)
    spaces = {"teacher": (images, texts, owner), "student": (encoded.images, encoded.texts, owner)}
    numbers = draw_figure2(spaces, finished.out)
    measures = list(next(iter(numbers.values())))
    lines = [[name, *(_number(space[measure]) for measure in measures)] for name, space in numbers.items()]
    table = markdown_table(["space", *(measure.replace("_", " ") for measure in measures)], lines)
    picture = "![Feature spaces of teacher and student](figure2.png)"
    return {"md": finished.markdown(picture, table) + "\n"}


def _number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_number, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


_DRAWN = ("json", "png", "svg")
_MAKERS: dict[str, Callable[[Finished], Files]] = {"rows": _rows, "published": _published, "cost": _cost}
_MAKERS["spaces"] = _spaces
