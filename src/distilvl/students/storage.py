"""Save and load a student, a plain SentenceTransformer folder, and the basis in which it learnt its teacher."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding, Transformer
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.io.checksums import check_sums, write_sums
from distilvl.io.files import give_usual_modes, new_folder
from distilvl.students.folder import BASIS_NAME, is_sentence_transformer, read_basis, student_folder
from distilvl.students.processors import processor_kwargs, take_any_mode
from distilvl.students.timm_towers import TIMM_TYPE, require_timm
from distilvl.students.towers import loading, pooling_layer_kwargs, quiet_transformers

MODALITIES = ("text", "image")
_UNLIMITED = 100_000  # tokens, where nothing cuts a text: more than a server takes letters


def is_student(model: SentenceTransformer) -> bool:
    """Whether `model` has the shape that `build_student` makes: a text and an image route, each with a tower."""
    router = model[0]
    if not isinstance(router, Router) or set(router.sub_modules) != set(MODALITIES):
        return False
    return isinstance(route(model, "image")[0], Transformer) and (
        isinstance(route(model, "text")[0], Transformer) or has_static_text(model)
    )


def has_static_text(student: SentenceTransformer) -> bool:
    """Whether the text tower is a table of rows (`distilvl.students.static`) instead of a transformer."""
    return isinstance(route(student, "text")[0], StaticEmbedding)


def route(student: SentenceTransformer, modality: str) -> Any:
    """The modules of one route, tower first, as an `nn.Sequential`."""
    return cast(Router, student[0]).sub_modules[modality]


def max_length(student: SentenceTransformer) -> int:
    """Tokens of a text that are read: the tokenizer's limit or the number of learnt positions, if there is any."""
    tower = route(student, "text")[0]
    if has_static_text(student):
        return int((tower.tokenizer.truncation or {"max_length": _UNLIMITED})["max_length"])
    positions = getattr(tower.model.config, "max_position_embeddings", None)
    limits = [tower.tokenizer.model_max_length, tower.max_seq_length, positions]
    return int(min(limit for limit in limits if limit))


def principal_basis(images: Iterable[Tensor], texts: Iterable[Tensor]) -> Tensor:
    """The orthogonal R (D, D) whose columns are the axes of most to least squared length of the teacher features.

    Turned features `u R` have the dot products of `u`, and their first d columns keep most of their length. The mean is
    not taken off, since a cosine counts from the origin. Both modalities, u^v (n, D) and u^t (m, D), weigh the same.
    """
    _, axes = torch.linalg.eigh(_second_moment(images) + _second_moment(texts))
    axes = axes.flip(1)
    # The sign of an axis is arbitrary; with its largest entry positive it is the same on every machine.
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return (axes * largest.sign()).float()  # type: ignore[no-any-return]


def _second_moment(blocks: Iterable[Tensor]) -> Tensor:
    """The mean of u u^T over all features, (D, D) float64."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for rows in blocks:
        total, count = total + rows.double().T @ rows.double(), count + len(rows)
    return total / count


def save_basis(basis: Tensor, student: Path) -> None:
    """Keep R in the student's folder: `u R` is what the student's embeddings are compared with."""
    save_file({"basis": basis.contiguous()}, student / BASIS_NAME)
    give_usual_modes(student / BASIS_NAME)
    write_sums(student)


def load_basis(student: Path) -> Tensor | None:
    """R of a student's folder, (D, D); none where the student learnt the teacher's own space."""
    basis = read_basis(student)
    return None if basis is None else torch.from_numpy(basis)


def save_student(student: SentenceTransformer, path: Path) -> None:
    """Write the student folder; it appears whole or, when the write fails, not at all."""
    with new_folder(path, replace=True) as staging:
        with quiet_transformers():
            student.save(str(staging), create_model_card=False)
        _remember_arguments(student, staging)
        give_usual_modes(staging)
        write_sums(staging)


def _remember_arguments(student: SentenceTransformer, folder: Path) -> None:
    """Without them, loading would give towers saved without a pooler a new, unused one, or other pixels to a tower."""
    for name in MODALITIES:
        tower: Any = getattr(route(student, name)[0], "model", None)
        if tower is None:  # a static one
            continue
        kwargs = {"model_kwargs": pooling_layer_kwargs(tower), "processor_kwargs": processor_kwargs(tower)}
        needed = {key: value for key, value in kwargs.items() if value}
        for path in folder.glob(f"{name}_0_*/sentence_bert_config.json") if needed else ():
            fields = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps({**fields, **needed}, indent=4), encoding="utf-8")


def load_student(path: str | Path, *, device: str | None = None) -> SentenceTransformer:
    """The student of a run folder, or of a folder that `save_student` wrote; the hub is not looked at.

    `DistilvlError` for a run that is not finished, or what is no SentenceTransformer with a text and an image route.
    """
    path = student_folder(path)
    remedy = "Give a run, its `student` folder (it holds modules.json), or a preset's name."
    if not is_sentence_transformer(path):
        raise DistilvlError(f"{path} is not a student folder.", remedy)
    if any(TIMM_TYPE in config.read_text(encoding="utf-8") for config in path.glob("image_0_*/config.json")):
        require_timm()
    check_sums(path)
    with loading(f"{path} is not a student folder", remedy):
        safely = {"use_safetensors": True}
        student = SentenceTransformer(str(path), device=device, model_kwargs=safely, local_files_only=True)
    if not is_student(student):
        raise DistilvlError(f"{path} has no text and image routes.", remedy)
    take_any_mode(route(student, "image")[0].processor)  # students were saved without it once
    return student


def count_parameters(model: SentenceTransformer) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
