"""`export_student`: a trained student as one folder of ONNX graphs, scored before the folder gets its name."""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx
import torch
from PIL import Image

from distilvl.data import PairDataset, Record
from distilvl.data.crops import Items
from distilvl.data.left_out import NOT_DECODED, LeftOut, all_left_out, read_left_out
from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.cost import StudentEncoder, milliseconds
from distilvl.evaluation.encode import ImageTextEncoder
from distilvl.evaluation.intervals import few_images
from distilvl.export.dtypes import (
    Lower,
    check_dtypes,
    kept_by,
    layer_errors,
    lowered,
    split_layers,
)
from distilvl.export.graphs import Graphs, export_graphs, layers
from distilvl.export.inputs import image_steps, save_tokenizer
from distilvl.export.measure import TEACHER, TORCH, Export, Row, gallery_of, overlaps, rsums, stored_rsum
from distilvl.io.checksums import sealed
from distilvl.io.files import new_folder
from distilvl.io.hashes import file_hash
from distilvl.models import load_teacher
from distilvl.pictures import decode_image
from distilvl.recipes import load_saved
from distilvl.runtime import Runtime
from distilvl.runtime.manifest import MANIFEST_NAME, File, Manifest, Towers, is_export
from distilvl.students import DualEncoder, load_student
from distilvl.students.folder import BASIS_NAME, load_dims, run_of, student_folder
from distilvl.teachers.base import folder_hash
from distilvl.training.inputs import Inputs
from distilvl.training.run_folder import RunFolder

logger = logging.getLogger("distilvl")
_TOKENIZER = "tokenizer.json"
_SAMPLE = 32
_WORST = 5
_NO_PAIRS = "these images have no captions: no RSUM, and no dtype is refused; the overlap with PyTorch is told instead"
_MORE_KEPT = (1, 2, 4, 8)  # layers in fp32 beside those that are anyway, one try after the other


@dataclass(frozen=True)
class Settings:
    """What is wanted of an export."""

    split: str = "val"  # whose images and captions are scored
    precisions: Sequence[str] = ("fp32", "int8")  # the dtypes, of `fp32`, `fp16` and `int8`
    max_drop: float = 1.0  # how much RSUM (0 to 600) a dtype may lose against the student in PyTorch
    keep: Sequence[str] = ()  # layers, or modules with layers in them, that stay in fp32
    features: str | Path | None = None  # a store with the teacher's features of the split; else the run's, if any
    teacher: str | None = None  # what `load_model` takes: it is timed, and scored where no store has its features
    skip_bad: bool = False  # leave bad images out


def export_student(
    source: str | Path, out: str | Path, data: str | Path | Items | None = None, settings: Settings | None = None
) -> Export:
    """Write a student as ONNX and score each dtype; the folder gets its name only if none lost too much.

    Args:
        source: a run folder or a student folder.
        out: the new folder; an earlier export there is replaced.
        data: as `load_any` takes it, RSUM is measured on it; that of the run if not given. Photographs without captions
            will do: then it is told how much each dtype finds of what PyTorch finds, and none is refused.
        settings: the rest.

    Raises:
        DistilvlError: not a student, a tower that cannot be exported, an unknown dtype or layer, bad data, a folder
            that cannot be written, or a dtype that loses too much; then nothing is left behind.
    """
    settings = settings or Settings()
    dtypes = check_dtypes(settings.precisions)
    path, out = student_folder(source), Path(out)
    if out.exists() and not is_export(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DistilvlError(f"{out} exists and is not an exported student.", "Choose another --out.")
    with new_folder(out, replace=True) as folder:
        encoder = DualEncoder(load_student(path, device="cpu"))
        dataset = _scored_data(data, path, settings.skip_bad)
        if isinstance(dataset, PairDataset):
            gallery, note = dataset.split(settings.split), few_images(dataset, settings.split)
        else:
            gallery, note = gallery_of(dataset), _NO_PAIRS
        manifest = _prepared(path, encoder, folder, gallery)
        graphs = export_graphs(encoder)
        _, kept = split_layers(graphs, settings.keep)
        lower = {dtype: partial(lowered, dtype=dtype) for dtype in dtypes}
        for dtype in dtypes:
            own = kept_by(dtype, graphs)
            manifest = _with_graphs(manifest, folder, graphs, dtype, lower[dtype], list(dict.fromkeys([*own, *kept])))
        paired = isinstance(dataset, PairDataset)
        rows, unscored = _measured(path, encoder, manifest, folder, gallery, settings, paired)
        for place, row in enumerate(rows):
            if row.drop is not None and row.drop > settings.max_drop:
                errors = _layer_errors(encoder, graphs, gallery, lower[row.name], settings.skip_bad)
                try_again = partial(_kept_more, row, errors, lower[row.name], graphs, manifest)
                manifest, rows[place] = try_again(folder, gallery, settings, note or "")
        run = run_of(path)
        of_run = LeftOut() if run is None else all_left_out(read_left_out(run))
        export = Export(out, manifest.name, gallery.name, len(gallery), len(gallery.captions),
                        torch.get_num_threads(), tuple(rows), unscored, of_run, note)  # fmt: skip
        _write(folder, replace(manifest, scores=export.scores()))
    return export


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps(sealed(manifest.as_dict()), indent=2) + "\n", encoding="utf-8")


def _with_graphs(
    manifest: Manifest, folder: Path, graphs: Graphs, dtype: str, lower: Lower, kept: Sequence[str]
) -> Manifest:
    """Write both graphs in `dtype`, but for the layers `kept` in fp32, and the manifest with them."""
    names = {modality: f"{modality}.{dtype}.onnx" for modality in graphs}
    for modality, graph in graphs.items():
        logger.info("writing %s", names[modality])
        onnx.save(lower(graph, [node.name for node in layers(graph) if node.name not in set(kept)]),
                  folder / names[modality])  # fmt: skip
    towers = {**manifest.precisions, dtype: Towers(**names, kept=tuple(kept) if dtype != "fp32" else ())}
    paths = (path for path in sorted(folder.iterdir()) if path.name != MANIFEST_NAME)
    files = {path.name: File(file_hash(path), path.stat().st_size) for path in paths}
    written = replace(manifest, precisions=towers, files=files)
    _write(folder, written)
    return written


def _scored_data(data: str | Path | Items | None, student: Path, skip_bad: bool) -> Items:
    """What `data` says, or what the student's run was scored on; a folder without captions goes with made ones."""
    if data is not None and not isinstance(data, str | Path):
        return data
    inputs, run = Inputs(skip_bad), run_of(student)
    if data is None:
        if run is None:
            raise DistilvlError(f"no data is named, and {student} lies in no run's folder.", "Pass --data.")
        data = load_saved(RunFolder(run).config).inputs.scored_data
    return inputs.dataset(str(inputs.without_captions(data, None)))


def _prepared(path: Path, encoder: DualEncoder, folder: Path, gallery: PairDataset) -> Manifest:
    """The manifest as far as it is known before there are graphs; the tokenizer is written."""
    longest, pad_id = save_tokenizer(encoder, folder / _TOKENIZER, gallery.captions[:1000])
    if (path / BASIS_NAME).is_file():  # for an index with its teacher's embeddings
        shutil.copyfile(path / BASIS_NAME, folder / BASIS_NAME)
    folder_name = path.resolve().parent.name if path.name == "student" else path.resolve().name
    dim = int(encoder.student.get_embedding_dimension() or 0)
    return Manifest(
        name=folder_name, revision=folder_hash(path), dim=dim, normalized=encoder.normalized, size=encoder.image_size,
        steps=image_steps(encoder), tokenizer=_TOKENIZER, max_length=longest, pad_id=pad_id,
        precisions={}, files={}, scores={}, dims=load_dims(path),
    )  # fmt: skip


def _measured(
    path: Path, encoder: DualEncoder, manifest: Manifest, folder: Path, gallery: PairDataset, settings: Settings,
    paired: bool,
) -> tuple[list[Row], LeftOut]:  # fmt: skip
    """Rows of the teacher, where known, of PyTorch and of each dtype; and what was left out of the gallery.

    Unless it is `paired`, the rows have an overlap in the place of RSUM.
    """
    encoders: dict[str, ImageTextEncoder] = {TORCH: StudentEncoder(encoder.student)}
    for dtype in manifest.precisions:
        encoders[dtype] = Runtime.load(folder, precision=dtype, threads=torch.get_num_threads())
    teacher = None if settings.teacher is None else load_teacher(settings.teacher)
    store = partial(stored_rsum, settings.features, run_of(path), gallery, skip_bad=settings.skip_bad)
    stored = store() if paired else None
    timed = encoders if teacher is None else {TEACHER: teacher, **encoders}
    # Teachers are slow: one whose features are stored only encodes the sample that is timed.
    measure = rsums if paired else overlaps
    scores, left_out = measure(timed if stored is None else encoders, gallery, skip_bad=settings.skip_bad)
    pictures, captions, _ = _decoded(gallery, _SAMPLE, settings.skip_bad)
    times = milliseconds(timed, pictures, captions)
    stored_size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    rows = [Row(TORCH, stored_size, scores[TORCH], None, *times[TORCH])]
    for name in manifest.precisions:
        size = sum(manifest.files[file].size for file in manifest.graphs(name))
        rows.append(Row(name, size, scores[name], scores[TORCH] - scores[name], *times[name]))
    if not paired:
        rows = [replace(row, rsum=None, drop=None, overlap=scores[row.name]) for row in rows]
    if paired and (teacher is not None or stored is not None):
        rsum = stored if stored is not None else scores[TEACHER]
        parameters = getattr(teacher, "num_parameters", None)  # in fp32, if it says how many it has
        weights = None if parameters is None else 4 * int(parameters)
        rows.insert(0, Row(TEACHER, weights, rsum, None, *times.get(TEACHER, (None, None))))
    return rows, left_out


def _decoded(records: Iterable[Record], most: int, skip_bad: bool) -> tuple[list[Image.Image], list[str], LeftOut]:
    """The first `most` pictures that can be decoded, a caption of each, and the bad ones that were met on the way."""
    pictures: list[Image.Image] = []
    captions: list[str] = []
    bad = LeftOut()
    for record in records:
        if len(pictures) == most:
            break
        try:
            pictures.append(decode_image(record.image.read(), record.image.name))
            captions.append(record.captions[0])
        except BadImageError as error:
            if not skip_bad:
                raise
            bad.add(error.reason or NOT_DECODED, record.image.name)
    return pictures, captions, bad


def _layer_errors(
    encoder: DualEncoder, graphs: Graphs, gallery: PairDataset, lower: Lower, skip_bad: bool
) -> dict[str, float]:
    """What each layer alone costs in a dtype, by `layer_errors`; those that suffer most first."""
    pictures, captions, _ = _decoded(gallery, _SAMPLE, skip_bad)
    ids, mask = encoder.pad(encoder.tokenize(captions))
    errors = layer_errors(graphs["image"], lower, {"pixels": encoder.resize(pictures)})
    errors |= layer_errors(graphs["text"], lower, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _kept_more(
    row: Row, errors: Mapping[str, float], lower: Lower, graphs: Graphs, manifest: Manifest,
    folder: Path, gallery: PairDataset, settings: Settings, note: str,
) -> tuple[Manifest, Row]:  # fmt: skip
    """A dtype that lost too much, with so many of the layers that suffer most in fp32 that it loses little enough.

    `DistilvlError` where the last of `_MORE_KEPT` are not enough, with what a person can do about it.
    """
    dtype, kept, full = row.name, manifest.precisions[row.name].kept, (row.rsum or 0) + (row.drop or 0)
    worst = [name for name in errors if name not in kept]
    for count in _MORE_KEPT if dtype != "fp32" else ():
        logger.info("%s loses %.1f of RSUM: %s stay in fp32", dtype, row.drop, ", ".join(worst[:count]))
        manifest = _with_graphs(manifest, folder, graphs, dtype, lower, [*kept, *worst[:count]])
        model = Runtime.load(folder, precision=dtype, threads=torch.get_num_threads())
        rsum = rsums({dtype: model}, gallery, skip_bad=settings.skip_bad)[0][dtype]
        pictures, captions, _ = _decoded(gallery, _SAMPLE, settings.skip_bad)
        size = sum(manifest.files[file].size for file in manifest.graphs(dtype))
        row = Row(dtype, size, rsum, full - rsum, *milliseconds({dtype: model}, pictures, captions)[dtype])
        if full - rsum <= settings.max_drop:
            return manifest, row
    named = ", ".join(f"{name} ({errors[name]:.1e})" for name in worst[:_WORST])
    kept_too = "" if dtype == "fp32" else f" with {len(manifest.precisions[dtype].kept)} layers in fp32"
    raise DistilvlError(
        f"{dtype}{kept_too} loses {row.drop:.1f} of RSUM, more than --max-drop {settings.max_drop:g}; nothing was "
        f"written. {note and note + ' '}"
        f"The layers that suffer most, by 1 - cosine of the features with each of them alone in {dtype}: {named}.",
        "Keep whole modules in fp32 (--keep image.tower), or allow a larger drop.",
    )
