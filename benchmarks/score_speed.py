"""Time and memory of exact scoring beside the bare matrix product of the same shapes.

    python benchmarks/score_speed.py [--texts 25000] [--images 5000] [--width 768] [--kind planted] [--repeats 5]

Each repeat times `images @ texts.T` in float32 and `distilvl.evaluation.score`, one after the other in one process, in
alternating order. Printed are the best times, their ratio, the median of the ratios within repeats, and the peak of
resident memory above the inputs, each from a process of its own (BLAS allocates outside Python's view). Features:
`planted`, texts are noisy copies of their image; `random`, unrelated, so that no answer is clear and the most
comparisons are close; `near`, all within a hundredth of each other. BLAS takes as many threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from distilvl.evaluation import score

Single = npt.NDArray[np.float32]


def make(args: argparse.Namespace) -> tuple[Single, Single, npt.NDArray[np.int64]]:
    """Features of images and texts, float32, and the row of each text's image."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.images, args.width), dtype=np.float32)
    owner = np.arange(args.texts) % args.images
    texts = rng.standard_normal((args.texts, args.width), dtype=np.float32)
    if args.kind == "planted":
        texts *= 4
        texts += images[owner]
    elif args.kind == "near":
        images, texts = 1 + 0.01 * images, 1 + 0.01 * texts
    return images, texts, owner


def resident() -> int:
    """Bytes of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def peak_above_inputs(args: argparse.Namespace, what: str, answer: multiprocessing.SimpleQueue[int]) -> None:
    """Run `what` once; put the peak of resident memory above what the inputs need."""
    images, texts, owner = make(args)
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = images @ texts.T if what == "product" else score(images, texts, owner)
    peak[0] = max(peak[0], resident())
    done.set()
    watcher.join()
    del kept
    answer.put(peak[0] - before)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--kind", choices=["planted", "random", "near"], default="planted")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    memory = {}
    for what in ("product", "score"):
        answer: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
        process = context.Process(target=peak_above_inputs, args=(args, what, answer))
        process.start()
        process.join()
        memory[what] = answer.get()
    images, texts, owner = make(args)
    works: dict[str, Callable[[], object]] = {
        "product": lambda: images @ texts.T,
        "score": lambda: score(images, texts, owner),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for k in range(args.repeats + 1):
        for name in list(works)[:: 1 if k % 2 else -1]:
            seconds = timed(works[name])
            if k:  # the first round warms up
                times[name].append(seconds)
    best = {name: min(values) for name, values in times.items()}
    ratios = [a / b for a, b in zip(times["score"], times["product"], strict=True)]
    print(f"{args.texts} texts x {args.images} images x {args.width}, {args.kind} features")
    for name in works:
        print(f"{name:8} {best[name]:7.3f} s   peak {memory[name] / 2**20:6.0f} MiB above the inputs")
    print(f"ratio    {best['score'] / best['product']:7.3f} of the best times, {median(ratios):.3f} median")


if __name__ == "__main__":
    main()
