"""What lies in a page's folder when its blocks begin: photographs, benchmarks and models under the names the docs use.

    python things.py FOLDER

All are small and drawn or built here. Pictures are scenes as JPEGs, so that the demo's teacher knows them. `hub` is a
cache of the Hugging Face hub with tiny models of random weights under the real names, so that presets and ids load.

| name | what |
|---|---|
| `photos/` | 70 / 15 / 15 pictures with five captions each; those of `holidays/` were taken in July 2021 |
| `flickr8k/`, `coco/` | Karpathy's layout: 70 / 15 / 15 pictures |
| `flickr30k/` | the same, and 1,000 of split test, as its protocol wants |
| `coco/captions.txt`, `lines.txt` | captions without pictures |
| `shards/` | `train-000.tar`, `val-000.tar` |
| `pets/` | a folder a class |
| `Pictures/` | of the home folder |
| `dog.jpg`, `query.jpg`, `picture.png` | single pictures |
| `photo_teacher.py` | the class `PhotoTeacher` |
| `i.npy`, `t.npy`, `o.npy`, `other-i.npy`, `other-t.npy` | features of 20 images and 40 texts, and whose they are |
| `vit/`, `minilm/` | what `VIT_S14` and `MINILM_L6` name |
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distilvl.config import StudentConfig
from distilvl.data.records import Record
from distilvl.data.scenes import scenes_dataset
from distilvl.recipes import load_config
from distilvl.students import build_student, save_student

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
PHOTO_TEACHER = '''
from distilvl.teachers.demo_network import DemoTeacher


class PhotoTeacher(DemoTeacher):
    """The demo's network under a name of its own."""
'''


def main(folder: Path) -> None:
    """Make all of it below `folder`: `page`, what a page's folder begins with, and `hub`."""
    page, hub = folder / "page", folder / "hub"
    scenes = scenes_dataset(train=70, val=15, test=1015, hard_negatives=False)
    few = [*scenes.split("train"), *scenes.split("val"), *scenes.split("test")[:15]]
    pictures(page, few)
    for name in ("flickr8k", "coco"):
        karpathy(page / name, name, few)
    karpathy(page / "flickr30k", "flickr30k", [*few[:-15], *scenes.split("test")[:1000]])
    captions = [caption for record in few for caption in record.captions]
    for path in (page / "lines.txt", page / "coco" / "captions.txt"):
        path.write_text("\n".join(captions) + "\n", encoding="utf-8")
    shards(page / "shards", few)
    arrays(page)
    (page / "photo_teacher.py").write_text(PHOTO_TEACHER, encoding="utf-8")
    torch.manual_seed(0)
    towers(page, hub, captions)


def jpeg(record: Record, taken: str | None = None) -> bytes:
    """The scene as a camera would hand it over; `taken` is the EXIF time."""
    picture, buffer = Image.open(io.BytesIO(record.image.read())), io.BytesIO()
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    picture.convert("RGB").save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def pictures(page: Path, records: Sequence[Record]) -> None:
    """`photos`, `Pictures`, `pets` and the single pictures."""
    (page / "photos" / "holidays").mkdir(parents=True)
    lines = []
    for k, record in enumerate(records):
        name = f"{'holidays/' if k % 4 == 0 else ''}{k:03d}.jpg"
        (page / "photos" / name).write_bytes(jpeg(record, f"2021:07:{k % 28 + 1:02d} 12:00:00" if k % 4 == 0 else None))
        lines.append(json.dumps({"image": name, "captions": record.captions, "split": record.split}))
    (page / "photos" / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copytree(page / "photos" / "holidays", page / "Pictures" / "holidays")
    for k, record in enumerate(records[:9]):
        place = page / "pets" / ("red_square", "blue_star", "green_heart")[k % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.jpg").write_bytes(jpeg(record))
    (page / "dog.jpg").write_bytes(jpeg(records[1]))
    (page / "query.jpg").write_bytes(jpeg(records[2]))
    Image.open(page / "dog.jpg").save(page / "picture.png")


def karpathy(folder: Path, name: str, records: Sequence[Record]) -> None:
    """A benchmark in Karpathy's layout."""
    (folder / "images").mkdir(parents=True)
    entries, sentence = [], 0
    for k, record in enumerate(records):
        file = f"{name}_{k:012d}.jpg"
        (folder / "images" / file).write_bytes(jpeg(record))
        sentences = [{"raw": text, "sentid": sentence + n} for n, text in enumerate(record.captions)]
        entries.append({"filename": file, "split": record.split, "imgid": k, "sentences": sentences})
        sentence += len(sentences)
    (folder / f"dataset_{name}.json").write_text(json.dumps({"dataset": name, "images": entries}), encoding="utf-8")


def shards(folder: Path, records: Sequence[Record]) -> None:
    """A tar archive a split."""
    folder.mkdir()
    for split in ("train", "val"):
        with tarfile.open(folder / f"{split}-000.tar", "w") as tar:
            for k, record in enumerate(record for record in records if record.split == split):
                for ending, data in (("jpg", jpeg(record)), ("txt", "\n".join(record.captions).encode())):
                    entry = tarfile.TarInfo(f"{k:06d}.{ending}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def arrays(page: Path) -> None:
    """Features of 20 images and their 40 texts by two models; `o.npy` has the row of each text's image."""
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), 2)
    for prefix, noise in (("", 0.2), ("other-", 0.6)):
        images = random.normal(size=(20, 16))
        np.save(page / f"{prefix}i.npy", images.astype(np.float32))
        texts = images[owners] + random.normal(scale=noise, size=(40, 16))
        np.save(page / f"{prefix}t.npy", texts.astype(np.float32))
    np.save(page / "o.npy", owners)


def towers(page: Path, hub: Path, captions: Sequence[str]) -> None:
    """The towers of the presets and of the docs' commands, and the teachers that the docs name by their ids."""
    words = tokenizer(captions)
    square = {"height": 112, "width": 112}
    six = {**SIZES, "num_hidden_layers": 6}
    vit = transformers.Dinov2Model(transformers.Dinov2Config(image_size=112, patch_size=14, **six))
    save(page / "vit", vit, transformers.ViTImageProcessor(size=square))
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **six))
    save(page / "minilm", bert, words)
    student = load_config(student="tiny").student
    deit = transformers.DeiTModel(transformers.DeiTConfig(image_size=224, patch_size=16, num_hidden_layers=2, **SIZES))
    save(cached(hub, student.image.model), deit, transformers.DeiTImageProcessor())
    save(cached(hub, student.text.model), bert, words)
    config = StudentConfig.model_validate({"image": {"model": str(page / "vit"), "size": 56, "pooling": "cls"},
                                           "text": {"model": str(page / "minilm")}})  # fmt: skip
    save_student(build_student(config, 16, captions), cached(hub, "sentence-transformers/clip-ViT-B-32"))
    siglip = transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={**six, "vocab_size": len(words), "projection_size": 16, "max_position_embeddings": 64},
            vision_config={**six, "image_size": 28, "patch_size": 14},
        )
    )
    processor = transformers.SiglipImageProcessor(size={"height": 28, "width": 28})
    save(cached(hub, "google/siglip2-so400m-patch14-384"), siglip, processor, words)


def tokenizer(captions: Sequence[str]) -> Any:
    """A WordPiece tokenizer that knows the captions' words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for caption in captions for word in caption.replace(",", " ").replace(":", " ").split()})
    vocabulary = {word: k for k, word in enumerate([*special, *words, ",", ":"])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    )  # fmt: skip


def save(folder: Path, *parts: Any) -> None:
    """A model with its processor or tokenizer."""
    for part in parts:
        part.save_pretrained(folder)


def cached(hub: Path, name: str) -> Path:
    """The folder of a model in the hub's cache."""
    repository, commit = hub / f"models--{name.replace('/', '--')}", "0" * 40
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]))
