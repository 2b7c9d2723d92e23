"""The model card: README.md of the student folder, for people and model hubs; its words are in card.md."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

import yaml

from distilvl._version import __version__
from distilvl.config import (
    Config,
    FitConfig,
    ImageTowerConfig,
    StaticTextConfig,
    TextTowerConfig,
    TransformerTextConfig,
)
from distilvl.data.crops import Items
from distilvl.data.left_out import LeftOut
from distilvl.data.records import CONTENT, PAIRS, UnpairedDataset
from distilvl.data.shards import ShardSplit
from distilvl.evaluation.intervals import MEASURES
from distilvl.features import Manifest
from distilvl.io.files import write_atomically
from distilvl.io.markdown import code, fenced, markdown_table, plain

UNKNOWN = "unknown"
AnyRun: TypeAlias = Config | FitConfig
_FROM_FILE = (
    ("Apache-2.0", r"Apache License\s+Version 2\.0"),
    ("MIT", r"\bMIT License\b|Permission is hereby granted, free of charge"),
    ("BSD-3-Clause", r"Neither the name of"),
    ("CC-BY-NC-4.0", r"Attribution-NonCommercial 4\.0"),
    ("CC-BY-4.0", r"Attribution 4\.0 International"),
)
# Stated on the models' own pages or in their repositories; by the beginning of the name, longest first.
_PUBLISHED = {
    **dict.fromkeys(("google/bert_uncased", "google-bert/bert-base-uncased", "google/vit-"), "Apache-2.0"),
    **dict.fromkeys(("google/siglip", "facebook/dinov2", "facebook/deit"), "Apache-2.0"),
    **dict.fromkeys(("openai/clip-", "beit3"), "MIT"),
    "timm/tf_efficientnet_lite": "Apache-2.0",
    "sentence-transformers/all-minilm": "Apache-2.0",
    "demo": "Apache-2.0, part of distilvl",
}
_COUNTED = {
    PAIRS: " Ground truth `pairs`: right are an image's own captions alone, as in published results.",
    CONTENT: " Ground truth `content`: captions that are equal word by word, and pictures that are equal byte by "
    "byte, are each other's right answers.",
}


_CHOICE = {
    "train": "The scores above are of the split that the best epoch was chosen on, so they flatter the model a little; "
    "score it\n  on data it has never seen before relying on it.",
    "fit": "Its settings were chosen on a held-out part of its training data, so the scores above, if there are any, "
    "are of\n  items that it has not seen; but they are of the same kind. Score it on yours before relying on it.",
}


def write_model_card(
    folder: Path,
    config: AnyRun,
    result: Mapping[str, Any],
    train: Items | ShardSplit,
    manifest: Manifest | None,
    *,
    extra: Items | ShardSplit | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    left_out: LeftOut | None = None,
) -> Path:
    """Write `folder/README.md`, of the student in `folder`; returns the file.

    It was trained on `train`, and on `extra` beside that, with the teacher's features of `manifest`, if any. `result`
    is the run's; `intervals` are of 95 %, of the validation score, as `distilvl.evaluation.intervals` names them.
    `left_out`, of the data or by the teacher, gets a section of its own.
    """
    text = Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8")).substitute(
        base_model=_base_model(config),
        name=plain(folder.resolve().parent.name),
        task=_task(config, result, manifest),
        usage=fenced(usage(folder), "python"),
        requires=_requires(folder),
        scores=_scores(result, intervals or {}),
        making=_making(config, result, [train] if extra is None else [train, extra], manifest),
        left_out="".join(f"{part}\n\n" for part in left_out_section(left_out or LeftOut())),
        command="fit" if isinstance(config, FitConfig) else "train",
        choice=_CHOICE["fit" if isinstance(config, FitConfig) else "train"],
        recipe=fenced(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "yaml"),
        licences=_licences(config, manifest),
    )
    path = folder / "README.md"
    write_atomically(path, text.encode("utf-8", errors="replace"))
    return path


def left_out_section(left_out: LeftOut) -> list[str]:
    """Markdown: heading and a line a reason; nothing where nothing was left out."""
    if not left_out:
        return []
    lines = "\n".join(f"- {plain(line)}" for line in left_out.lines())
    what = "Not used for training or scoring, or left out when the teacher's features were extracted:"
    return ["## Left out", f"{what}\n\n{lines}"]


def _requires(folder: Path) -> str:
    """A sentence on what has to be installed for `usage`."""
    configs = (path.read_text(encoding="utf-8") for path in folder.rglob("config.json"))
    if not any("timm_wrapper" in text for text in configs):
        return "It needs `pip install sentence-transformers pillow`."
    return (
        "It needs `pip install sentence-transformers pillow timm`. timm imports torchvision, which has to be of torch's"
        " build: where it is not (`torchvision::nms does not exist`), `import distilvl` first mends it."
    )


def usage(folder: Path) -> str:
    """Three lines that rank captions for a picture."""
    return (
        "from sentence_transformers import SentenceTransformer\n"
        f"student = SentenceTransformer({str(folder)!r})\n"
        'print(student.similarity(student.encode(["photo.jpg"]), student.encode(["a dog on a beach", "a red car"])))'
    )


def _base_model(config: AnyRun) -> str:
    towers = [tower.pretrained for tower in (config.student.image, config.student.text)]
    bases = [model for model in towers if model and not Path(model).exists() and model.count("/") == 1]
    return str(yaml.safe_dump({"base_model": bases}, allow_unicode=True)) if bases else ""


def _task(config: AnyRun, result: Mapping[str, Any], manifest: Manifest | None) -> str:
    dim = config.student.dim or (manifest.dim if manifest else None)
    size = f"{result['parameters'] / 1e6:.1f} million parameters"
    space = f"one space of {dim} dimensions" if dim else "one space"
    taught = "It was trained on pairs alone, without a teacher,"
    if manifest is not None and config.needs_teacher:
        taught = f"It was distilled from the stored features of {plain(manifest.teacher)}"
    return (
        f"A dual encoder of {size} that puts images and texts into {space}: for image-text retrieval in both "
        f"directions, for search among pictures and for sorting by similarity. {taught} with distilvl {__version__}."
    )


def _scores(result: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> str:
    if "val" not in result:
        return "It was not scored: its data have no captions that belong to images, and no others were named."
    header = ["model", *(f"{way} R@{k}" for way in ("image to text", "text to image") for k in (1, 5, 10)), "RSUM"]
    rows = [["**this student**", *_cells(result["val"])]]
    if intervals:
        ends = [intervals.get(name) for name in MEASURES]
        rows.append(["95 % interval", *("" if pair is None else f"{pair[0]:.1f} to {pair[1]:.1f}" for pair in ends)])
    if "teacher" in result:
        rows.append(["its teacher", *_cells(result["teacher"])])
    parts = [
        f"Recalls in percent on the {plain(str(result.get('split', 'val')))} split of its data; RSUM is their sum."
        + _COUNTED.get(str(result.get("ground_truth")), ""),
        markdown_table(header, rows),
    ]
    if intervals:
        parts.append("The intervals are bootstrapped over images; they do not cover another training run.")
    if "note" in result:
        parts.append(plain(str(result["note"])))
    if result.get("retention") is not None:
        parts.append(f"Retention: {100 * result['retention']:.1f} % of its teacher's RSUM.")
    return "\n\n".join(parts)


def _cells(score: Mapping[str, Any]) -> list[str]:
    recalls = [score[way][f"r{k}"] for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    return [f"{value:.1f}" for value in (*recalls, score["rsum"])]


def _making(
    config: AnyRun, result: Mapping[str, Any], data: Sequence[Items | ShardSplit], manifest: Manifest | None
) -> str:
    student, teacher = config.student, "none"
    if manifest is not None and config.needs_teacher:
        teacher = f"{plain(manifest.teacher)}, revision {plain(manifest.revision)}, {manifest.dim} dimensions"
        if manifest.num_parameters:
            teacher += f", {manifest.num_parameters / 1e6:.1f} million parameters"
    towers = f"- image tower: {_tower(student.image)}; text tower: {_tower(student.text)}{_trimmed(result)}"
    if student.folder:
        towers = f"- started from the student {code(student.folder)}"
    where = f"precision {result.get('precision', '?')} on {plain(str(result.get('device', '?')))}, "
    where += f"{result.get('seconds', 0) / 60:.1f} minutes"
    data_line = f"- data: {'; beside it '.join(map(_counted, data))}"
    lines = [f"- teacher: {teacher}", data_line, towers, *_learnt_vocabulary(result)]
    return "\n".join([*lines, *_method(config, result, where)])


def _learnt_vocabulary(result: Mapping[str, Any]) -> list[str]:
    known = result.get("vocabulary", {})
    if "unknown_rate" not in known:
        return []
    share = f"{100 * known['unknown_rate']:.2g} % of the tokens of the scored captions are unknown to it"
    return [f"- vocabulary of its texts: {known['entries']:,} entries; {share}"]


def _method(config: AnyRun, result: Mapping[str, Any], where: str) -> list[str]:
    if isinstance(config, FitConfig):
        chosen = result.get("chosen", {})
        sides = "; ".join(f"{side} {_settings(settings)}" for side, settings in chosen.items())
        return [f"- solved in closed form, towers as they were: {sides}", f"- seed {config.seed}, {where}"]
    training = config.training
    return [
        f"- losses: {', '.join(config.objective.losses)}; balancer: {config.balancer.name}",
        f"- {training.epochs} epochs of batches of {training.batch_size}, best epoch {result.get('best_epoch', '?')}, "
        f"seed {training.seed}, learning rate {config.optimizer.lr:g}, {where}",
    ]


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if value is not None)


def _counted(data: Items | ShardSplit) -> str:
    unpaired = ", not paired" if isinstance(data, UnpairedDataset) else ""
    return f"{plain(data.name)}, {len(data)} images with {len(data.captions)} captions{unpaired}"


def _tower(tower: ImageTowerConfig | TextTowerConfig) -> str:
    if isinstance(tower, StaticTextConfig):
        return f"a new table of rows of {tower.rank or 'D'} numbers, the mean of a text's rows"
    assert isinstance(tower, ImageTowerConfig | TransformerTextConfig)  # the other kinds
    if tower.model is None:
        kind = (tower.config or {}).get("model_type", "transformer")
        return f"{plain(str(kind))} with new weights"
    cut = f", first {tower.layers} layers" if tower.layers else ""
    return code(tower.model) + cut


def _trimmed(result: Mapping[str, Any]) -> str:
    known = result.get("vocabulary", {})
    if "entries_before" not in known:
        return ""
    return (
        f"; its vocabulary trimmed from {known['entries_before']:,} to {known['entries']:,} entries, those that the "
        f"training captions use ({known['parameters_saved'] / 1e6:.1f} million parameters fewer; "
        f"{100 * known['share_cut_otherwise']:.1f} % of the val captions are cut into other tokens than before)"
    )


def _licences(config: AnyRun, manifest: Manifest | None) -> str:
    student, lines = config.student, []
    if student.folder:
        lines.append(f"- the student it started from: {plain(licence_of(student.folder))}")
    for name, tower in () if student.folder else (("image", student.image), ("text", student.text)):
        source = tower.pretrained
        known = "new weights, no licence inherited" if source is None else licence_of(source)
        lines.append(f"- {name} tower: {plain(known)}")
    if manifest is not None and config.needs_teacher:
        known = licence_of("demo" if manifest.teacher == "demo-teacher" else config.inputs.teacher or manifest.teacher)
        lines.append(f"- teacher {plain(manifest.teacher)}: {plain(known)}")
    lines.append("- data: " + ("made by distilvl, Apache-2.0" if config.inputs.data == "scenes" else UNKNOWN))
    return "\n".join(lines)


def licence_of(model: str | None) -> str:
    """The licence of a model's folder or public name; `unknown` where nothing here tells.

    In a folder it is the `license` line of README.md, or a known LICENSE file in it or right above it.
    """
    if model and Path(model).is_dir():
        return _of_folder(Path(model))
    known = [name for name in _PUBLISHED if (model or "").lower().startswith(name)]
    return _PUBLISHED[max(known, key=len)] if known else UNKNOWN


def _of_folder(folder: Path) -> str:
    stated = _front_matter(folder / "README.md").get("license")
    if isinstance(stated, str) and stated:
        return stated
    for place in (folder, folder.resolve().parent):
        for path in sorted(place.glob("LICEN[CS]E*")):
            text = path.read_text(encoding="utf-8", errors="replace")[:4000] if path.is_file() else ""
            found = next((name for name, pattern in _FROM_FILE if re.search(pattern, text)), None)
            if found:
                return found
    return UNKNOWN


def _front_matter(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        values = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, IndexError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
