"""Peak memory of a process that does nothing but load a student and encode some items.

Run as `python -m distilvl.reports.memory STUDENT`; prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ITEMS = 64


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        libraries: after importing what a student needs.
        peak: highest while it was loaded and encoded 64 images and 64 captions.
    """

    libraries: float
    peak: float


def measure_memory(student: Path) -> Memory | None:
    """Of a fresh process; none where the system does not tell (Windows) or the process fails."""
    command = [sys.executable, "-m", "distilvl.reports.memory", str(student)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        return Memory(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


def _main(student: str) -> None:
    from PIL import Image

    from distilvl.students import load_student

    libraries = _peak()
    model = load_student(student, device="cpu")
    model.encode([Image.new("RGB", (256, 256))] * ITEMS, batch_size=ITEMS, show_progress_bar=False)
    model.encode(["a photograph of a dog on a beach"] * ITEMS, batch_size=ITEMS, show_progress_bar=False)
    sys.stdout.write(json.dumps({"libraries": libraries, "peak": _peak()}) + "\n")


def _peak() -> float:
    # On Linux getrusage counts the parent process in, whose pages a child holds until it starts its own program.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource

    # Kibibytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _main(sys.argv[1])
