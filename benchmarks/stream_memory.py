"""Stream 100,000 records from shards: each once an epoch, memory flat, and a restart at the next record.

    python benchmarks/stream_memory.py --out docs/images/stream-memory.png

makes the shards (JPEGs of 32 x 32 pixels, one caption each) and a store of random teacher features in a temporary
folder, reads an epoch with two worker processes and notes the resident memory of every process on the way; then starts
again in the middle of the epoch, as a run does that was stopped there, and compares 100 batches bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from distilvl.config import StudentConfig, TrainingConfig
from distilvl.data.shards import open_split
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.students import DualEncoder, build_student
from distilvl.training.sources import StepInputs
from distilvl.training.stream import StreamSource, image_ids

SHARD, WIDTH, BATCH, SIZE = 1000, 64, 64, 32
RESTARTED = 100  # batches that are compared after the restart
TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
STUDENT = {
    "image": {"config": {"model_type": "vit", "image_size": SIZE, "patch_size": 8, **TOWER}, "size": SIZE},
    "text": {"config": {"model_type": "bert", **TOWER}, "vocabulary": 200},
}


def make(folder: Path, records: int) -> tuple[list[bytes], FeatureStore]:
    """Shards and the store of their features; the keys of all images."""
    random, keys = np.random.default_rng(0), []
    store = FeatureStore.create(folder / "features", Manifest(teacher="random", revision="1", dim=WIDTH))
    for number, start in enumerate(range(0, records, SHARD)):
        images, texts = [], []
        with tarfile.open(folder / f"train-{number:04d}.tar", "w") as tar:
            for k in range(start, min(start + SHARD, records)):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(buffer, "JPEG")
                caption = f"noise number {k}"
                for kind, data in (("jpg", buffer.getvalue()), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{k:08d}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                images.append(image_key(buffer.getvalue()))
                texts.append(text_key(caption))
        for modality, these in (("image", images), ("text", texts)):
            store.add(modality, these, random.standard_normal((len(these), WIDTH)))
        keys += images
    return keys, store


def resident() -> dict[str, tuple[float, float]]:
    """MB that this process and each of its children holds: all, and what is not a file's, which it cannot give back.

    The feature store is mapped: its pages count as soon as they are read, and the system takes them back at will.
    """
    processes = {"main process": os.getpid()}
    children = sorted(child.pid or 0 for child in multiprocessing.active_children())
    processes |= {f"worker {number}": pid for number, pid in enumerate(children, start=1)}
    found = {}
    for name, pid in processes.items():
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if "VmRSS" in lines:  # a worker that has done its part and ended has none
            total, files = (int(lines[field].split()[0]) / 1000 for field in ("VmRSS", "RssFile"))
            found[name] = total, total - files
    return found


def digest(inputs: StepInputs) -> bytes:
    """A hash of all that is in a batch."""
    found = hashlib.sha256()
    for tensor in vars(inputs).values():
        found.update(b"-" if tensor is None else tensor.numpy().tobytes())
    return found.digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="picture of memory over records (PNG)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.records, arguments.workers)
    readings = found.pop("readings")
    print(json.dumps(found, indent=2))
    if arguments.out:
        draw(readings, arguments.out)


def measure(folder: Path, records: int, workers: int) -> dict[str, object]:
    """The epoch and the restart, checked."""
    keys, store = make(folder, records)
    started = time.monotonic()
    split = open_split(f"webdataset:{folder}", "train")
    counting = time.monotonic() - started
    encoder = DualEncoder(build_student(StudentConfig.model_validate(STUDENT), WIDTH, ["noise number 0123456789"]))
    config = TrainingConfig(batch_size=BATCH, seed=1)

    def source() -> StreamSource:
        return StreamSource(split, encoder, config, store, Fabric(accelerator="cpu", devices=1), workers=workers)

    seen = np.zeros(records, dtype=np.int64)
    digests, sizes, readings, done = [], [], [], 0
    started = time.monotonic()
    for step, inputs in enumerate(source().epoch(0)):
        seen[done : done + len(inputs.ids)] = inputs.ids.numpy()
        done += len(inputs.ids)
        digests.append(digest(inputs))
        sizes.append(len(inputs.ids))
        if step % 20 == 0 and len(memory := resident()) == 1 + workers:
            readings.append((done, memory))
    seconds = time.monotonic() - started
    assert done == records
    assert np.array_equal(np.sort(seen), np.sort(image_ids(keys).numpy())), "not every record exactly once"
    assert len(np.unique(seen)) == records

    middle = len(digests) // 2 + 1
    after = min(RESTARTED, len(digests) - middle)
    started = time.monotonic()
    rest = source().epoch(0, skip=middle)
    again = [digest(next(rest))]
    first = time.monotonic() - started
    again += [digest(next(rest)) for _ in range(after - 1)]
    assert again == digests[middle : middle + after], "the restarted epoch goes on elsewhere"
    own = [sum(private for _, private in by.values()) for _, by in readings]
    quarter = len(own) // 4
    return {
        "records": records,
        "batches": len(digests),
        "workers": workers,
        "counting_s": round(counting, 1),
        "records_per_s": round(records / seconds),
        "restarted_at_record": int(sum(sizes[:middle])),
        "first_batch_after_restart_s": round(first, 2),
        "store_mb": round(sum(file.stat().st_size for file in store.path.iterdir()) / 1e6, 1),
        "own_memory_second_quarter_mb": round(float(np.mean(own[quarter : 2 * quarter])), 1),
        "own_memory_last_quarter_mb": round(float(np.mean(own[-quarter:])), 1),
        "readings": readings,
    }


def draw(readings: list[tuple[int, dict[str, tuple[float, float]]]], path: Path) -> None:
    """Memory of each process over the records read; dashed: without the pages of mapped files."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for number, name in enumerate(readings[-1][1]):
        done = [records for records, _ in readings]
        axes.plot(done, [by[name][0] for _, by in readings], color=f"C{number}", label=name)
        axes.plot(done, [by[name][1] for _, by in readings], color=f"C{number}", linestyle="--")
    axes.plot([], [], color="grey", linestyle="--", label="without mapped files")
    axes.set(xlabel="records of the epoch", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
