"""Does the memory of a training run grow with its length, or with its data?

    python benchmarks/run_memory.py [--images 2000] [--epochs 10] [--kinds folder shards trunk] [--json out.json]

Runs `distilvl train` as a user does, on noise pictures of 64 x 64 with five captions each and random teacher features,
and reads the resident memory of the process (and of its loader workers) five times a second: N images for `--epochs`
epochs, then N and 10 N images for two, from a folder of pictures with a pixel cache on disk, from shards, and from the
folder with the top of the image tower learning on stored outputs of the layers below it, four crops an image (`trunk`).
Of the shards' records 8 x 100 are held to be shuffled (8 x 1,000 unless asked otherwise), so that both sizes hold as
many. Files that are mapped (the cache, the feature store) count apart: the system takes their pages back at will.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key

WIDTH, SIZE, SHARD = 64, 64, 1000
KINDS = ("folder", "shards", "trunk")
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STUDENT = {
    "image": {"config": {"model_type": "vit", "image_size": SIZE, "patch_size": 8, **TOWER}, "size": SIZE},
    "text": {"config": {"model_type": "bert", **TOWER}, "vocabulary": 200},
}


def make(folder: Path, count: int) -> None:
    """`count` pictures to train on and 200 to score: as files with a list, as shards, and a store of features."""
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True)
    (folder / "shards").mkdir()
    store = FeatureStore.create(folder / "features", Manifest(teacher="random", revision="1", dim=WIDTH))
    lines = []
    for split, many in (("train", count), ("val", 200)):
        for start in range(0, many, SHARD):
            images, texts = [], []
            with tarfile.open(folder / "shards" / f"{split}-{start // SHARD:04d}.tar", "w") as tar:
                for k in range(start, min(start + SHARD, many)):
                    name, jpeg = f"{split}-{k:07d}", noise(random)
                    captions = [f"{split} noise number {k}, line {line}" for line in range(5)]
                    (folder / "pictures" / f"{name}.jpg").write_bytes(jpeg)
                    lines.append(json.dumps({"image": f"{name}.jpg", "captions": captions, "split": split}))
                    add(tar, f"{name}.jpg", jpeg)
                    add(tar, f"{name}.json", json.dumps({"captions": captions}).encode())
                    images.append(image_key(jpeg))
                    texts += [text_key(caption) for caption in captions]
            for modality, keys in (("image", images), ("text", texts)):
                store.add(modality, keys, random.standard_normal((len(keys), WIDTH)))
    (folder / "pictures" / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def noise(random: np.random.Generator) -> bytes:
    """One JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One file of a shard."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def run(folder: Path, kind: str, epochs: int) -> dict[str, object]:
    """The largest memory in each epoch of one run, MB."""
    out = folder / f"run-{kind}-{epochs}"
    student = folder / "student.yaml"
    student.write_text(json.dumps(STUDENT), encoding="utf-8")
    data = f"webdataset:{folder / 'shards'}?buffer=100" if kind == "shards" else str(folder / "pictures")
    command = [sys.executable, "-m", "distilvl", "train", "--data", data, "--features", str(folder / "features"),
               "--student", str(student), "--out", str(out), "--device", "cpu", "--set", f"training.epochs={epochs}",
               "--set", "training.precision=fp32"]  # fmt: skip
    if kind == "trunk":
        for setting in ("student.image.trainable_layers=1", "training.crops=4", "training.crop_features=whole"):
            command += ["--set", setting]
    if kind != "shards":
        command += ["--pixel-cache", str(folder / "cache")]
    highest: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            epoch = finished_epochs(out / "metrics.jsonl")
            if epoch is not None:
                now = resident(process.pid)
                highest[epoch] = [max(pair) for pair in zip(highest[epoch], now, strict=True)]
            time.sleep(0.2)
        if process.returncode:
            assert process.stderr is not None
            sys.exit(process.stderr.read())
    own = {epoch + 1: round(pair[0]) for epoch, pair in sorted(highest.items()) if epoch < epochs}
    return {"own_mb_by_epoch": own, "with_files_mb": round(max(pair[1] for pair in highest.values()))}


def finished_epochs(metrics: Path) -> int | None:
    """How many epochs the run has behind it; none before its first line."""
    if not metrics.is_file():
        return None
    return sum('"val"' in line for line in metrics.read_text(encoding="utf-8").splitlines())


def resident(pid: int) -> tuple[float, float]:
    """MB of a process and its children: without mapped files, and with them."""
    own = whole = 0.0
    for number in (pid, *children(pid)):
        try:
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines())
            total, files = (int(lines[field].split()[0]) / 1000 for field in ("VmRSS", "RssFile"))
        except (OSError, KeyError):  # it has just ended
            continue
        own, whole = own + total - files, whole + total
    return own, whole


def children(pid: int) -> list[int]:
    """Processes that `pid` started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        once, tenfold = Path(name, "once"), Path(name, "tenfold")
        make(once, arguments.images)
        if "folder" in arguments.kinds:
            found[f"folder, {arguments.images} images"] = run(once, "folder", arguments.epochs)
        make(tenfold, 10 * arguments.images)
        for kind in arguments.kinds:
            for folder, count in ((once, arguments.images), (tenfold, 10 * arguments.images)):
                found[f"{kind}, {count} images, two epochs"] = run(folder, kind, 2)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
