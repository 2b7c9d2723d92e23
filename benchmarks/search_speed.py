"""How fast photographs are indexed and found, beside what limits either.

    python benchmarks/search_speed.py index --model runs/tiny --photos PHOTOS [--pictures 512] [--json out.json]
    python benchmarks/search_speed.py command --model exported [--rows 10000] [--queries 20] [--json out.json]
    python benchmarks/search_speed.py search [--rows 1000000] [--dim 256] [--queries 50] [--json out.json]

`index`: pictures a second of a whole `distilvl index` (read, hash, decode, thumbnail, encode, commit), and of the tower
alone on the same pictures, decoded before the clock starts, in the same batches; both without loading the model. Half
of the bare batches run before the index and half after it, so that a machine that gets slower meets both. Then a run
with nothing to do, and one with ten changed files. Milliseconds of processor time a picture, and below a query, are
there for machines that do other work meanwhile.

`search`: random unit vectors, which are the hardest case, as no part of them lies nearer to a query than the rest does.
Recall@10 against NumPy's exact answer, and milliseconds a query (median and 95th percentile), for an exhaustive
search and with the vector index, with and without a filter that half of the rows meet.

`command`: seconds from `distilvl search INDEX "two dogs on a beach"` to its end, and its largest memory, in an index of
random vectors; medians, and with a filter, for which LanceDB is opened.

All work in a temporary folder (--work chooses the disk); a million rows of width 256 take about 2.5 GB there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.models import Encoder, load_encoder
from distilvl.pictures import decode_image
from distilvl.search import Index, index_folder
from distilvl.search import table as table_module
from distilvl.search.photographs import list_files
from distilvl.search.quick import write_quick
from distilvl.search.table import Photo, PhotoTable
from distilvl.search.update import BATCH

Rows = npt.NDArray[np.float32]
_BLOCK = 50_000
# A process's largest memory counts what its parent had when it forked, so that a small one starts the command.
_TIMED = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure_index(model: str, photos: Path, count: int, work: Path) -> dict[str, Any]:
    """Rates of the index and of the bare tower on `count` pictures that are copied to `work`."""
    folder = work / "photos"
    folder.mkdir()
    for file in list_files(photos.resolve())[:count]:
        shutil.copy(file.path, folder)
    files = list_files(folder)
    encoder = load_encoder(model)
    images = [decode_image(Path(file.path).read_bytes(), file.path) for file in files]
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    encoder.encode_images(batches[0])  # the first call of a tower is slower
    seconds, bare_cpu = _bare(encoder, batches[::2])
    cpu = time.process_time()
    first = index_folder(folder, work / "index", encoder)
    cpu = time.process_time() - cpu
    more, more_cpu = _bare(encoder, batches[1::2])
    started = time.perf_counter()
    second = index_folder(folder, work / "index", encoder)
    nothing = time.perf_counter() - started
    for file in files[:10]:
        with Image.open(file.path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file.path)
    third = index_folder(folder, work / "index", encoder)
    bare = len(images) / (seconds + more)
    return {
        "images": len(images),
        "index_images_per_s": first.images_per_second,
        "bare_images_per_s": bare,
        "index_cpu_ms": 1000 * cpu / len(images),
        "bare_cpu_ms": 1000 * (bare_cpu + more_cpu) / len(images),
        "ratio": first.images_per_second / bare,
        "second_run_encodes": second.encoded,
        "second_run_s": nothing,
        "ten_changed_encode": third.encoded,
    }


def measure_search(rows: int, dim: int, queries: int, work: Path) -> dict[str, Any]:
    """Recall and latency of random vectors, exactly and with the vector index."""
    table = PhotoTable(work / "index", dim)
    asked = next(_vectors(queries, dim, 1))
    scores, allowed = np.empty((queries, 0), np.float32), np.arange(rows) % 2 == 0
    started = time.perf_counter()
    for block, vectors in enumerate(_vectors(rows, dim, 0)):
        table.write(_photos(vectors, block * _BLOCK), replacing=False)
        scores = np.concatenate([scores, asked @ vectors.T], axis=1)
    result: dict[str, Any] = {"rows": rows, "dim": dim, "write_s": time.perf_counter() - started}
    best = {"all": _best(scores), "half": _best(np.where(allowed, scores, -9))}
    result["exact"] = _ask(table, asked, best)
    started = time.perf_counter()
    table_module.EXACT_ROWS, limit = 0, table_module.EXACT_ROWS
    trained = table.train(0)
    result["build_s"] = time.perf_counter() - started if trained else None
    table_module.EXACT_ROWS = limit
    if trained:
        result["index"] = _ask(table, asked, best)
    return result


def measure_command(model: str, rows: int, runs: int, work: Path) -> dict[str, Any]:
    """Seconds and MiB of the whole command."""
    index = Index.create(work / "index", model)
    for start, block in enumerate(_vectors(rows, index.model.dim, 0)):
        index._table.write(_photos(block, start * _BLOCK), replacing=False)
    write_quick(index._table)
    result: dict[str, Any] = {"rows": rows, "runs": runs}
    for name, more in {"plain": [], "filtered": ["--since", "2019"]}.items():
        command = [sys.executable, "-m", "distilvl", "search", str(index.path), "two dogs on a beach", *more]
        seconds, memory = [], []
        for _ in range(runs + 1):
            told = subprocess.run([sys.executable, "-c", _TIMED, *command], capture_output=True, check=True).stdout
            took, kilobytes = map(float, told.split()[-2:])
            seconds.append(took)
            memory.append(kilobytes / 1024)
        result[name] = {"s_p50": float(np.median(seconds[1:])), "s_max": max(seconds[1:]), "mib": max(memory)}
    return result


def _bare(encoder: Encoder, batches: list[list[Image.Image]]) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    started, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        encoder.encode_images(batch)
    return time.perf_counter() - started, time.process_time() - cpu


def _ask(table: PhotoTable, asked: Rows, best: dict[str, npt.NDArray[np.int64]]) -> dict[str, Any]:
    conditions: dict[str, list[str]] = {"all": [], "half": ["starts_with(path, '/even/')"]}
    measured = {}
    for name, given in conditions.items():
        table.nearest(asked[0], given, 10)
        milliseconds, found, cpu = [], 0, time.process_time()
        for query, expected in zip(asked, best[name], strict=True):
            started = time.perf_counter()
            hits = table.nearest(query, given, 10)
            milliseconds.append(1000 * (time.perf_counter() - started))
            found += len({int(hit.id, 16) for hit in hits} & set(expected.tolist()))
        measured[name] = {
            "recall_at_10": found / (10 * len(asked)),
            "ms_p50": float(np.median(milliseconds)),
            "ms_p95": float(np.quantile(milliseconds, 0.95)),
            "cpu_ms": 1000 * (time.process_time() - cpu) / len(asked),
        }
    return measured


def _vectors(rows: int, dim: int, seed: int) -> Iterator[Rows]:
    random = np.random.default_rng(seed)
    for start in range(0, rows, _BLOCK):
        block = random.standard_normal((min(_BLOCK, rows - start), dim), dtype=np.float32)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def _photos(vectors: Rows, start: int) -> list[Photo]:
    date = datetime(2020, 1, 1)
    return [
        Photo(f"/{'odd' if k % 2 else 'even'}/{k}.jpg", f"{k:032x}", 1, 1, None, date, 1, 1, b"", vector)
        for k, vector in enumerate(vectors, start)
    ]


def _best(scores: Rows) -> npt.NDArray[np.int64]:
    return np.argpartition(-scores, 10, axis=1)[:, :10]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("command", "index", "search"))
    parser.add_argument("--model")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        if given.what == "search":
            result = measure_search(given.rows or 1_000_000, given.dim, given.queries or 50, Path(work))
        elif given.what == "command" and given.model:
            result = measure_command(given.model, given.rows or 10_000, given.queries or 20, Path(work))
        elif given.model and given.photos:
            result = measure_index(given.model, given.photos, given.pictures, Path(work))
        else:
            sys.exit("index needs --model and --photos, command --model")
    result["cores"] = os.cpu_count()
    result["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
