"""`load_dataset`: all kinds of data, chosen by what the source is."""

from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import parse_qs

from distilvl.data.arrow import holds_images, is_saved_dataset, parquet_files, read_hub, read_parquet
from distilvl.data.benchmarks import BENCHMARKS, read_coco_captions, read_karpathy, read_named
from distilvl.data.columns import NO_CHOICE
from distilvl.data.folders import image_files, no_images, read_sidecars, read_unpaired
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset, UnpairedDataset
from distilvl.data.remote import is_remote, local_only
from distilvl.data.shards import read_webdataset
from distilvl.data.specs import LIST, Spec, parse_path, parse_spec
from distilvl.data.tables import read_folder
from distilvl.errors import DistilvlError

GROUP = "distilvl.readers"
"""Entry points of packages that read `NAME:PLACE?OPTION=VALUE`: `reader(place, options, skip_bad=...)`, a dataset."""

_ACCEPTED = (
    "Accepted are: 'scenes' (the built-in data set); a folder with a Karpathy JSON (dataset*.json), "
    "a captions.jsonl, a captions.csv or .tsv, COCO's captions_*.json, *.parquet, or a .txt beside each image; "
    "such a file itself; flickr8k, flickr30k or coco, alone or with :FOLDER or :hub; hf:OWNER/NAME; "
    "unpaired:DIR,FILE; unpaired:DIR; webdataset:SHARDS. Parquet and shards may be addresses, such as s3://bucket/a.parquet."
)


def load_dataset(source: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of pairs that `source` names.

    Args:
        source: `scenes`; a folder or a list (Karpathy's JSON, COCO captions, JSONL, CSV, TSV, Parquet, text files
            beside images, `save_to_disk`); `flickr8k`, `flickr30k` or `coco`, alone or followed by `:FOLDER` or
            `:hub`; `hf:NAME` and `parquet:PATH` with `?image=COLUMN&caption=COLUMN`; `webdataset:SHARDS`. Parquet
            and shards may lie behind an address (`s3://`, `gs://`, `https://`, ...).
        skip_bad: leave out, count and log images and rows that cannot be used, instead of raising a `DistilvlError`;
            images that are there but cannot be decoded are found when they are read.
    """
    data = load_any(source, skip_bad=skip_bad)
    if isinstance(data, UnpairedDataset):
        problem = f"{data.name} has images and texts without pairs."
        raise DistilvlError(problem, "Training can use it; this needs a dataset of pairs.")
    return data


def load_any(source: str | Path, *, skip_bad: bool = False) -> PairDataset | UnpairedDataset:
    """What `load_dataset` takes, or `unpaired:DIR,FILE`: images of a folder and lines of a text file, not linked.

    Without a file the texts are `data.phrases`.
    """
    if source == "scenes":
        from distilvl.data.scenes import scenes_dataset

        return scenes_dataset()
    if isinstance(source, str):
        if source in BENCHMARKS:
            return read_named(source, skip_bad=skip_bad)
        spec = parse_spec(source)
        if spec is not None:
            return _load_spec(spec, skip_bad=skip_bad)
        if is_remote(source):
            if source.lower().partition("?")[0].endswith(".parquet"):
                return read_parquet(source, skip_bad=skip_bad)
            raise local_only(source)
    spec = parse_path(source) if isinstance(source, str) else Spec(LIST, str(source))
    path = Path(spec.place)
    if path.is_dir():
        return _load_folder(path, spec, skip_bad=skip_bad)
    if path.is_file():
        return _load_list(path, spec, skip_bad=skip_bad)
    kind, colon, rest = str(source).partition(":")
    for reader in entry_points(group=GROUP, name=kind) if colon else ():
        place, _, query = rest.partition("?")
        found: PairDataset | UnpairedDataset = reader.load()(place, parse_qs(query), skip_bad=skip_bad)
        return found
    raise DistilvlError(f"there is no data set {str(source)!r}.", _ACCEPTED)


def is_unpaired(source: str) -> bool:
    """Whether `source` names images and texts without pairs; reads nothing."""
    spec = parse_spec(source)
    return spec is not None and spec.kind == "unpaired"


def _load_spec(spec: Spec, *, skip_bad: bool) -> PairDataset | UnpairedDataset:
    if spec.kind not in ("parquet", "webdataset"):
        for place in filter(is_remote, spec.place.split(",")):
            raise local_only(place)
    if not spec.place and spec.kind not in BENCHMARKS:
        raise DistilvlError(f"the data set {spec.kind}: names no place.", _ACCEPTED)
    if spec.kind in BENCHMARKS:
        return read_named(spec.kind, spec.place, skip_bad=skip_bad)
    if spec.kind == "hf":
        config, revision = spec.one("config"), spec.one("revision")
        return read_hub(spec.place, config=config, revision=revision, chosen=spec.columns, skip_bad=skip_bad)
    if spec.kind == "parquet":
        return read_parquet(spec.place, chosen=spec.columns, roots=spec.roots, skip_bad=skip_bad)
    if spec.kind == "webdataset":
        return read_webdataset(spec, skip_bad=skip_bad)
    return _load_unpaired(spec, skip_bad=skip_bad)


def _load_unpaired(spec: Spec, *, skip_bad: bool) -> UnpairedDataset:
    if Path(spec.place).is_dir():  # its name may have commas
        return read_unpaired(spec.place, skip_bad=skip_bad)
    commas = [k for k, letter in enumerate(spec.place) if letter == ","]
    parts = [(spec.place[:k], spec.place[k + 1 :]) for k in reversed(commas) if spec.place[:k] and spec.place[k + 1 :]]
    if not parts:
        problem = f"{spec} does not name a folder and a file, and there is no folder {spec.place}."
        raise DistilvlError(problem, "Write unpaired:IMAGES,CAPTIONS.txt, or unpaired:IMAGES for the package's texts.")
    there = [(images, texts) for images, texts in parts if Path(images).is_dir() and Path(texts).is_file()]
    return read_unpaired(*(there or parts)[0], skip_bad=skip_bad)


def _load_list(path: Path, spec: Spec, *, skip_bad: bool) -> PairDataset:
    suffix = path.suffix.lower()
    if suffix == ".json":
        _require_no_columns(path, spec)
        if path.name.startswith("captions_"):
            return read_coco_captions([path], roots=spec.roots, skip_bad=skip_bad)
        return read_karpathy(path, roots=spec.roots, skip_bad=skip_bad)
    if suffix in (".jsonl", ".csv", ".tsv", ".parquet"):
        read = read_parquet if suffix == ".parquet" else read_folder
        return read(path, chosen=spec.columns, roots=spec.roots, skip_bad=skip_bad)
    raise DistilvlError(f"{path} is not a data set: its name ends in {suffix or 'nothing'!r}.", _ACCEPTED)


def _load_folder(folder: Path, spec: Spec, *, skip_bad: bool) -> PairDataset:
    """The one list that `folder` holds, or what lies in it otherwise."""
    if is_saved_dataset(folder):
        if spec.roots:
            raise DistilvlError(f"{folder} holds its images itself.", "Leave root out.")
        return read_hub(str(folder), chosen=spec.columns, skip_bad=skip_bad)
    lists = sorted(folder.glob("dataset*.json"))
    lists += [path for kind in ("jsonl", "csv", "tsv") if (path := folder / f"captions.{kind}").is_file()]
    # What Hugging Face calls the list of an image folder; it counts where nothing else can be meant.
    if not lists and not any(folder.glob("*.txt")):
        lists = [path for kind in ("jsonl", "csv") if (path := folder / f"metadata.{kind}").is_file()]
    if len(lists) > 1:
        problem = f"the folder {folder} holds several lists: {', '.join(path.name for path in lists)}."
        raise DistilvlError(problem, "Give the one that you mean, by its path.")
    if lists:
        return _load_list(lists[0], spec, skip_bad=skip_bad)
    coco = sorted(folder.glob("captions_*.json")) or sorted(folder.glob("annotations/captions_*.json"))
    if coco:
        _require_no_columns(folder, spec)
        return read_coco_captions(coco, roots=spec.roots, skip_bad=skip_bad)
    tables = parquet_files(folder)
    # img2dataset writes a table of addresses beside each folder, or each shard, of what it fetched.
    are_data = spec.columns != NO_CHOICE or any(map(holds_images, tables))
    if tables and (are_data or not (image_files(folder, skip_bad=True) or any(folder.glob("*.tar")))):
        return read_parquet(folder, chosen=spec.columns, roots=spec.roots, skip_bad=skip_bad)
    if spec.options:
        raise DistilvlError(f"the folder {folder} holds no list that {spec.options} are of.", "Give the list's path.")
    left_out = LeftOut()
    if not image_files(folder, skip_bad=skip_bad, left_out=left_out):
        if any(folder.glob("*.tar")):
            raise DistilvlError(f"the folder {folder} holds shards.", f"Read them as webdataset:{folder}.")
        if left_out:
            raise no_images(folder, left_out, "no list of images and no images")
        raise DistilvlError(f"the folder {folder} holds no list of images and no images.", _ACCEPTED)
    return read_sidecars(folder, skip_bad=skip_bad)


def _require_no_columns(path: Path, spec: Spec) -> None:
    if spec.columns != NO_CHOICE:
        raise DistilvlError(f"{path} has no columns: its keys have fixed names.", "Of the options it takes root alone.")
