"""`export_student`: a trained student as one folder of ONNX graphs, scored before the folder gets its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image

from distilvl.data import PairDataset, Record, load_dataset
from distilvl.data.left_out import LeftOut, all_left_out, read_left_out
from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.cost import StudentEncoder, milliseconds
from distilvl.evaluation.encode import ImageTextEncoder
from distilvl.evaluation.intervals import few_images
from distilvl.export.dtypes import Lower, Lowering, check_dtypes, is_convolutional, layer_errors, split_layers
from distilvl.export.graphs import export_graphs
from distilvl.export.inputs import image_steps, save_tokenizer
from distilvl.export.measure import TEACHER, TORCH, Export, Row, rsums, stored_rsum
from distilvl.io.files import new_folder
from distilvl.io.hashes import file_hash
from distilvl.models import load_model
from distilvl.pictures import decode_image
from distilvl.runtime import Runtime
from distilvl.runtime.manifest import MANIFEST_NAME, File, Manifest, Towers, is_export
from distilvl.students import DualEncoder, load_student
from distilvl.students.folder import load_dims, run_of, student_folder
from distilvl.teachers.base import folder_hash


def export_folder(out: Path) -> AbstractContextManager[Path]:
    """A `new_folder` that replaces an earlier export; `DistilvlError` when `out` is something else."""
    if out.exists() and not is_export(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DistilvlError(f"{out} exists and is not an exported student.", "Choose another --out.")
    return new_folder(out, replace=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put `manifest.json` in the folder."""
    text = json.dumps(manifest.as_dict(), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


logger = logging.getLogger("distilvl")

_TOKENIZER = "tokenizer.json"
_CALIBRATION_IMAGES = 64
_SAMPLE = 32
_WORST = 5


@dataclass(frozen=True)
class Settings:
    """What is wanted of an export.

    Attributes:
        split: whose images and captions are scored.
        precisions: the dtypes, of `fp32`, `fp16` and `int8`.
        max_drop: how much RSUM (0 to 600) a dtype may lose against the student in PyTorch.
        keep: layers, or modules with layers in them, that stay in fp32.
        features: a store with the teacher's features of the split, for its RSUM; by default the run's, if it has them.
        teacher: what `load_model` takes: it is timed, and scored where no store has its features.
        skip_bad: leave bad images out.
    """

    split: str = "val"
    precisions: Sequence[str] = ("fp32", "int8")
    max_drop: float = 1.0
    keep: Sequence[str] = ()
    features: str | Path | None = None
    teacher: str | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class _Student:
    """The student that is exported, in all its forms."""

    path: Path
    encoder: DualEncoder
    graphs: Mapping[str, onnx.ModelProto]


def export_student(
    source: str | Path, out: str | Path, data: str | Path | PairDataset, settings: Settings | None = None
) -> Export:
    """Write a student as ONNX and score each dtype; the folder gets its name only if none lost too much.

    Args:
        source: a run folder or a student folder.
        out: the new folder; an earlier export there is replaced.
        data: on which RSUM is measured before and after, as `load_dataset` takes it; its training split calibrates
            int8 convolutional towers.
        settings: the rest; see `Settings`.

    Raises:
        DistilvlError: not a student, a tower that cannot be exported, an unknown dtype or layer, bad data, a folder
            that cannot be written, or a dtype that loses too much; then nothing is left behind.
    """
    settings = settings or Settings()
    dtypes = check_dtypes(settings.precisions)
    path = student_folder(source)
    with export_folder(Path(out)) as folder:
        encoder = DualEncoder(load_student(path, device="cpu"))
        dataset = data if isinstance(data, PairDataset) else load_dataset(data, skip_bad=settings.skip_bad)
        gallery, note = dataset.split(settings.split), few_images(dataset, settings.split)
        manifest = _prepared(path, encoder, folder, gallery)
        student = _Student(path, encoder, export_graphs(encoder))
        lowered, kept = split_layers(student.graphs, settings.keep)
        calibration, uncalibrated = None, LeftOut()
        if "int8" in dtypes and is_convolutional(student.graphs["image"]):
            calibration, uncalibrated = _calibration(dataset, encoder, skip_bad=settings.skip_bad)
        lowerings = {dtype: Lowering(dtype, calibration) for dtype in dtypes}
        towers = {dtype: _saved(student, how, lowered, kept, folder) for dtype, how in lowerings.items()}
        files = {file.name: File(file_hash(file), file.stat().st_size) for file in sorted(folder.iterdir())}
        manifest = replace(manifest, precisions=towers, files=files)
        write_manifest(folder, manifest)
        rows, unscored = _measured(student, manifest, folder, gallery, settings)
        for row in rows:
            if row.drop is not None and row.drop > settings.max_drop:
                raise _too_lossy(row, settings, student, gallery, lowerings[row.name], note)
        run = run_of(path)
        of_run = LeftOut() if run is None else all_left_out(read_left_out(run))
        export = Export(Path(out), manifest.name, gallery.name, len(gallery), len(gallery.captions),
                        torch.get_num_threads(), rows, unscored | uncalibrated, of_run, note)  # fmt: skip
        write_manifest(folder, replace(manifest, scores=export.scores()))
    return export


def _prepared(path: Path, encoder: DualEncoder, folder: Path, gallery: PairDataset) -> Manifest:
    """The manifest as far as it is known before there are graphs; the tokenizer is written."""
    longest, pad_id = save_tokenizer(encoder, folder / _TOKENIZER, gallery.captions[:1000])
    return Manifest(
        name=path.resolve().parent.name if path.name == "student" else path.resolve().name,
        revision=folder_hash(path),
        width=int(encoder.student.get_embedding_dimension() or 0),
        normalized=encoder.normalized,
        size=encoder.image_size,
        steps=image_steps(encoder),
        tokenizer=_TOKENIZER,
        max_length=longest,
        pad_id=pad_id,
        precisions={},
        files={},
        scores={},
        widths=load_dims(path),
    )


def _saved(student: _Student, lowering: Lowering, lowered: list[str], kept: list[str], folder: Path) -> Towers:
    """Both graphs of one dtype, written."""
    names = {modality: f"{modality}.{lowering.dtype}.onnx" for modality in student.graphs}
    for modality, graph in student.graphs.items():
        logger.info("writing %s", names[modality])
        onnx.save(lowering(graph, lowered), folder / names[modality])
    return Towers(names["image"], names["text"], tuple(kept) if lowering.dtype != "fp32" else ())


def _calibration(
    dataset: PairDataset, encoder: DualEncoder, *, skip_bad: bool
) -> tuple[npt.NDArray[np.uint8], LeftOut]:
    """Pixels of some training images, the same ones each time, and the bad ones that were met among them."""
    train = dataset.split("train")
    shuffled = (train[int(row)] for row in np.random.default_rng(0).permutation(len(train)))
    bad = LeftOut()
    decoded = _decoded(shuffled, _CALIBRATION_IMAGES, skip_bad=skip_bad, bad=bad)
    bad.log(train.name)
    return encoder.resize([picture for picture, _ in decoded]), bad


def _measured(
    student: _Student, manifest: Manifest, folder: Path, gallery: PairDataset, settings: Settings
) -> tuple[tuple[Row, ...], LeftOut]:
    """Rows of the teacher, where known, of PyTorch and of each dtype; and what was left out of the gallery."""
    threads = torch.get_num_threads()
    encoders: dict[str, ImageTextEncoder] = {TORCH: StudentEncoder(student.encoder.student)}
    for dtype in manifest.precisions:
        encoders[dtype] = Runtime.load(folder, precision=dtype, threads=threads)
    teacher = None if settings.teacher is None else load_model(settings.teacher)
    stored = stored_rsum(settings.features, run_of(student.path), gallery, skip_bad=settings.skip_bad)
    timed = encoders if teacher is None else {TEACHER: teacher, **encoders}
    # Teachers are slow: one whose features are stored only encodes the sample that is timed.
    scores, left_out = rsums(timed if stored is None else encoders, gallery, skip_bad=settings.skip_bad)
    times = milliseconds(timed, *_sample(gallery, skip_bad=settings.skip_bad))
    stored_size = sum(file.stat().st_size for file in student.path.rglob("*.safetensors"))
    rows = [Row(TORCH, stored_size, scores[TORCH], None, *times[TORCH])]
    for name in manifest.precisions:
        size = sum(manifest.files[file].size for file in manifest.graphs(name))
        rows.append(Row(name, size, scores[name], scores[TORCH] - scores[name], *times[name]))
    if teacher is not None or stored is not None:
        rsum = stored if stored is not None else scores[TEACHER]
        parameters = getattr(teacher, "num_parameters", None)  # in fp32, if it says how many it has
        weights = None if parameters is None else 4 * int(parameters)
        rows.insert(0, Row(TEACHER, weights, rsum, None, *times.get(TEACHER, (None, None))))
    return tuple(rows), left_out


def _sample(gallery: PairDataset, *, skip_bad: bool) -> tuple[list[Image.Image], list[str]]:
    """The first pictures of the split, and a caption of each."""
    decoded = _decoded(gallery, _SAMPLE, skip_bad=skip_bad)
    return [picture for picture, _ in decoded], [caption for _, caption in decoded]


def _decoded(
    records: Iterable[Record], most: int, *, skip_bad: bool, bad: LeftOut | None = None
) -> list[tuple[Image.Image, str]]:
    """The first `most` pictures that can be decoded, each with a caption; bad ones are counted in `bad`, or raise."""
    found: list[tuple[Image.Image, str]] = []
    for record in records:
        if len(found) == most:
            break
        try:
            found.append((decode_image(record.image.read(), record.image.name), record.captions[0]))
        except BadImageError as error:
            if not skip_bad:
                raise
            if bad is not None:
                bad.add_bad(error, record.image.name)
    return found


def _too_lossy(
    row: Row, settings: Settings, student: _Student, gallery: PairDataset, lower: Lower, note: str | None
) -> DistilvlError:
    """What a person can do about it: which layers suffer most in this dtype."""
    pictures, captions = _sample(gallery, skip_bad=settings.skip_bad)
    ids, mask = student.encoder.pad(student.encoder.tokenize(captions))
    inputs = {
        "image": {"pixels": student.encoder.resize(pictures)},
        "text": {"input_ids": ids.numpy(), "attention_mask": mask.numpy()},
    }
    errors: dict[str, float] = {}
    for modality, graph in student.graphs.items():
        errors |= layer_errors(graph, lower, inputs[modality])
    worst = sorted(errors, key=lambda name: -errors[name])[:_WORST]
    named = ", ".join(f"{name} ({errors[name]:.1e})" for name in worst)
    return DistilvlError(
        f"{row.name} loses {row.drop:.1f} of RSUM, more than --max-drop {settings.max_drop:g}; nothing was written. "
        f"{'' if note is None else note + ' '}"
        f"The layers that suffer most, by 1 - cosine of the features with each of them alone in {row.name}: {named}.",
        f"Keep some in fp32 (--keep {worst[0]}), or allow a larger drop.",
    )
