"""The server under requests that want to hold it: slow, cut, oversized, expensive and wrong ones.

    python tests/faults/hostile.py [--only NAME ...] [--json OUT]

`distilvl serve` runs as a process of its own over a small index. While one client attacks, a second one asks for
`/healthz` and a search, again and again. Told of each attack: the statuses that it got, the 99th percentile of both,
the most memory, and what was left of threads and memory ten seconds later. A fault is an answer that is not JSON, a
status that was not expected, a traceback in the log, a second client that is turned away, a server that does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx2
import numpy as np
from attacks import Attack, Server, attacks, many_scans, post, rebuilt, uri
from PIL import Image

_AFTER_S = 10.0


@dataclass
class Outcome:
    """What one attack did."""

    name: str
    answers: dict[str, int]
    seconds: float
    health_p99: float
    search_p99: float
    peak_mib: int
    mib: tuple[int, int]  # before, and ten seconds after
    threads: tuple[int, int]
    faults: list[str]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server over an index of 40 pictures of noise, with the built-in teacher as the model."""
    photos, random = folder / "photos", np.random.default_rng(0)
    photos.mkdir(parents=True)
    for k in range(40):
        Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(photos / f"{k:02d}.png")
    run = [sys.executable, "-m", "distilvl"]
    index = folder / "index"
    subprocess.run([*run, "index", str(photos), "--model", "demo", "--out", str(index)], check=True)
    command = [*run, "serve", "--index", str(index), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
            found = re.fullmatch(r"serving (.+) at (http://\S+)\n", line)
        server = Server(found[2], found[1], index, process.pid, process)
        threading.Thread(target=lambda: server.log.extend(process.stderr or ()), daemon=True).start()
        try:
            yield server
        finally:
            process.kill()


@dataclass
class Seen:
    """What a second client saw: the seconds of its requests, what it was refused, the server's most memory."""

    health: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    peak_mib: int = 0


def watch(server: Server, over: Event, searches: bool, found: Connection) -> None:
    """Ask until `over`, in a process of its own: what an attacker's own work costs is not the server's."""
    seen, refused = Seen(), Counter[str]()
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        while not over.is_set():
            seen.peak_mib = max(seen.peak_mib, server.status("VmRSS"))
            for path, seconds in (("/healthz", seen.health), ("/search?q=a+dog", seen.search))[: 1 + searches]:
                start = time.perf_counter()
                try:
                    if (status := client.get(path).status_code) != 200:
                        refused[f"{path} {status}"] += 1
                except httpx2.HTTPError as error:
                    refused[f"{path} {type(error).__name__}"] += 1
                seconds.append(time.perf_counter() - start)
            time.sleep(0.02)
    seen.refused = dict(refused)
    found.send(seen)


def attacked(server: Server, name: str, attack: Attack, expected: set[str], rest: float = _AFTER_S) -> Outcome:
    """Run one attack beside a second client."""
    before = server.status("VmRSS"), server.status("Threads")
    answers, logged, over = Counter[str](), len(server.log), multiprocessing.Event()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    asked = replace(server, process=None, log=[])  # what another process can be given
    second = multiprocessing.Process(target=watch, args=(asked, over, attack is not rebuilt, sender), daemon=True)
    second.start()
    start = time.perf_counter()
    attack(server, answers)
    seconds = time.perf_counter() - start
    over.set()
    seen: Seen = receiver.recv()
    second.join()
    time.sleep(rest)
    faults = [f"answered {status}" for status in sorted(set(answers) - expected)]
    faults += [f"the second client: {what} ({count} times)" for what, count in seen.refused.items()]
    faults += ["a traceback in the log"] * any("Traceback" in line for line in server.log[logged:])
    after = server.status("VmRSS"), server.status("Threads")
    p99 = [float(np.quantile(times, 0.99)) if times else 0.0 for times in (seen.health, seen.search)]
    return Outcome(name, dict(answers), seconds, p99[0], p99[1], seen.peak_mib, (before[0], after[0]),
                   (before[1], after[1]), faults)  # fmt: skip


def ended(server: Server) -> float:
    """Seconds from SIGTERM to the end, while pictures are being decoded."""
    body = uri(many_scans(5000, 60))
    threading.Thread(target=post, args=(server, Counter(), [body]), daemon=True).start()
    time.sleep(1)
    start, process = time.perf_counter(), server.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    return time.perf_counter() - start


def main() -> None:
    """All attacks, a line each; exit code 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        for name, (attack, expected) in attacks().items():
            if args.only and name not in args.only:
                continue
            one = attacked(server, name, attack, expected)
            outcomes.append(one)
            sys.stdout.write(f"{name:>36}: {one.answers}, {one.seconds:.1f} s; p99 of health {one.health_p99:.3f} s, "
                  f"search {one.search_p99:.3f} s; most {one.peak_mib} MiB, before and after {one.mib} MiB, "
                  f"{one.threads} threads{'; FAULTS: ' if one.faults else ''}{'; '.join(one.faults)}\n")  # fmt: skip
            sys.stdout.flush()
        sys.stdout.write(f"{'SIGTERM while decoding':>36}: {ended(server):.1f} s\n")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=2) + "\n", encoding="utf-8")
    sys.exit(any(one.faults for one in outcomes))


if __name__ == "__main__":
    main()
