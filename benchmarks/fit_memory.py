"""Peak memory of `distilvl fit` over the number of records: made pictures, made features, a small new student.

    python benchmarks/fit_memory.py --records 10000
    python benchmarks/fit_memory.py --records 100000

Prints records, seconds and MiB: after the data and the store are there, and at the peak of the fit. What grows is the
list of records itself (ids and captions); sums and held-out items do not.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import distilvl
from distilvl.data.records import PairDataset, Record
from distilvl.features import FeatureStore, Manifest
from distilvl.io.hashes import image_key, text_key

STUDENT = """
image:
  config: {model_type: vit, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           image_size: 32, patch_size: 16}
  size: 32
  pooling: mean
text: {kind: static, vocabulary: 1500, rank: 16}
"""
WORDS = [f"{a}{b}" for a in "bcdfghjklm" for b in ("an", "el", "id", "ol", "up", "ar", "en", "is", "ot", "um")]
D = 16


@dataclass(frozen=True, slots=True)
class Made:
    """A picture that is made when it is read."""

    name: str

    def read(self) -> bytes:
        """A PNG of one colour with a pixel of its own."""
        number, buffer = int(self.name), io.BytesIO()
        picture = Image.new("RGB", (32, 32), (number % 251, number // 251 % 251, number // 63001))
        picture.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def caption(number: int) -> str:
    """Four words."""
    return " ".join(WORDS[number // 100**k * 7 % 100] for k in range(3)) + f" {WORDS[number % 97]}"


def mebibytes() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    count = parser.parse_args().records
    random = np.random.default_rng(0)
    records = [Record(str(k), Made(str(k)), (caption(k),), "train") for k in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder, "features"), Manifest(teacher="made", revision="1", dim=D))
        for start in range(0, count, 4096):
            block = records[start : start + 4096]
            for modality, keys in (
                ("image", [image_key(one.image.read()) for one in block]),
                ("text", list({text_key(one.captions[0]) for one in block})),
            ):
                store.add(modality, keys, random.normal(size=(len(keys), D)).astype(np.float32))
        Path(folder, "student.yaml").write_text(STUDENT)
        before, started = mebibytes(), time.monotonic()
        distilvl.fit(data=PairDataset("made", tuple(records)), features=store, student=f"{folder}/student.yaml",
                     out=f"{folder}/out")  # fmt: skip
        seconds = time.monotonic() - started
    print(f"{count:,} records: {seconds:.0f} s, {before:.0f} MiB before the fit, {mebibytes():.0f} MiB at its peak")


if __name__ == "__main__":
    main()
