"""`distilvl serve` under load: many clients on loopback, each asking again as soon as it is answered.

    python benchmarks/serve_load.py --model runs/demo [--clients 64] [--seconds 60] [--images 0.0] [--json FILE]

Starts the server as a process of its own (or takes one that runs: --url and --name). A request holds one text of ten
random words; a share `--images` of the requests holds one JPEG of 320 x 240 instead. Printed are requests a second,
percentiles of the time from sending to the whole answer, errors (anything but 200 with a row), items a batch, and the
server's resident memory before, after a tenth of the time, and at the end. Clients and server share the processor; how
many cores each of them kept busy is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

WORDS = ["a", "the", "red", "dog", "cat", "runs", "on", "beach", "street", "two", "people", "with", "hat", "ball"]


@contextlib.contextmanager
def server(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Address and model's name; a server of our own is stopped at the end."""
    if args.url:
        yield args.url, args.name
        return
    command = [sys.executable, "-m", "distilvl", "serve", "--model", args.model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.fullmatch(r"serving (.+) at (http://\S+)\n", said)
        if found is None:
            sys.exit(said + process.stderr.read())
        try:
            yield found[2], found[1]
        finally:
            process.terminate()
            process.wait()


def body(rng: random.Random, name: str, pictures: list[str], share: float) -> bytes:
    """One request."""
    item = rng.choice(pictures) if rng.random() < share else " ".join(rng.choices(WORDS, k=10))
    return json.dumps({"model": name, "input": item, "encoding_format": "base64"}).encode()


def some_pictures() -> list[str]:
    """Twenty data URIs."""
    noise = np.random.default_rng(0)
    uris = []
    for _ in range(20):
        small = Image.fromarray(noise.integers(0, 255, (12, 16, 3), np.uint8))
        buffer = io.BytesIO()
        small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        uris.append(f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return uris


async def client(number: int, args: argparse.Namespace, name: str, url: str, end: float,
                 times: list[float], errors: Counter[str]) -> None:  # fmt: skip
    """Ask, and ask again, over a connection of its own."""
    rng, pictures = random.Random(number), some_pictures() if args.images else []
    async with httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        await ask(rng, pictures, args, name, http, end, times, errors)


async def ask(rng: random.Random, pictures: list[str], args: argparse.Namespace, name: str, http: httpx2.AsyncClient,
              end: float, times: list[float], errors: Counter[str]) -> None:  # fmt: skip
    """The client's requests, one after the other."""
    headers = {"Content-Type": "application/json"}
    while time.perf_counter() < end:
        content = body(rng, name, pictures, args.images)
        start = time.perf_counter()
        try:
            answer = await http.post("/v1/embeddings", content=content, headers=headers)
            good = answer.status_code == 200 and b'"embedding":"' in answer.content
            error = "" if good else f"status {answer.status_code}"
        except httpx2.HTTPError as failure:
            error = type(failure).__name__
        if error:
            errors[error] += 1
        else:
            times.append(time.perf_counter() - start)


async def metric(http: httpx2.AsyncClient, name: str) -> float:
    """Sum over the labels of a number of the server's."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


async def load(args: argparse.Namespace, url: str, name: str) -> dict[str, Any]:
    """All clients for the given time."""
    async with httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        for item in ["warm", *(some_pictures()[:1] if args.images else [])]:
            (await http.post("/v1/embeddings", json={"model": name, "input": item})).raise_for_status()
        resident = [await metric(http, "process_resident_memory_bytes")]
        batches, items = (
            await metric(http, "distilvl_batch_items_count"),
            await metric(http, "distilvl_batch_items_sum"),
        )
        cpu = await metric(http, "process_cpu_seconds_total")
        times: list[float] = []
        errors: Counter[str] = Counter()
        start, used = time.perf_counter(), time.process_time()
        tasks = [
            asyncio.create_task(client(k, args, name, url, start + args.seconds, times, errors))
            for k in range(args.clients)
        ]
        await asyncio.sleep(args.seconds / 10)
        resident.append(await metric(http, "process_resident_memory_bytes"))
        await asyncio.gather(*tasks)
        seconds, used = time.perf_counter() - start, time.process_time() - used
        resident.append(await metric(http, "process_resident_memory_bytes"))
        cpu = await metric(http, "process_cpu_seconds_total") - cpu
        batches = await metric(http, "distilvl_batch_items_count") - batches
        items = await metric(http, "distilvl_batch_items_sum") - items
    p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1000
    return {
        "clients": args.clients,
        "seconds": round(seconds, 1),
        "requests": len(times),
        "requests_per_s": round(len(times) / seconds, 1),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
        "errors": dict(errors),
        "items_per_batch": round(items / max(1.0, batches), 1),
        "rss_mb_start_tenth_end": [round(size / 1e6, 1) for size in resident],
        "server_cores": round(cpu / seconds, 2),
        "clients_cores": round(used / seconds, 2),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="what `distilvl serve --model` takes")
    parser.add_argument("--url", help="of a server that runs, instead of --model")
    parser.add_argument("--name", default="demo-teacher", help="of the model at --url")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=float, default=0.0, help="share of requests that hold a picture")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args()
    with server(args) as (url, name):
        result = asyncio.run(load(args, url, name))
    for key, value in result.items():
        print(f"{key:24} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
