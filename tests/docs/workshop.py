"""The folder that a page's blocks run in, and a shell to run them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from blocks import PYTHON, ROOT, Block

HERE = Path(__file__).parent

# What the pages' variables hold, as the pages say: a teacher, the folders of two towers.
VARIABLES = {"TEACHER": "demo", "VIT_S14": "vit", "MINILM_L6": "minilm"}

# What a page may say that it begins with, and how it is made; see `blocks.py`.
MADE = {
    "runs/demo": "distilvl train --teacher demo --data photos --student demo --recipe demo --out runs/demo",
    "runs/mine": "distilvl train --teacher demo --data photos --student demo --recipe demo --out runs/mine",
    "runs/tiny": "distilvl train --teacher demo --data photos --student tiny --out runs/tiny",
    "runs/contrastive": "distilvl train --data photos --student tiny --recipe contrastive --out runs/contrastive",
    "runs/flickr8k-strong": (
        "distilvl train --teacher demo --data flickr8k --student tiny --recipe strong --out runs/flickr8k-strong"
    ),
    "features/clip": (
        "distilvl features --teacher demo --data photos --out features/clip; "
        "distilvl features --teacher demo --data flickr8k --out features/clip"
    ),
    "features/siglip": (
        "distilvl features --teacher photo_teacher.py:PhotoTeacher --data photos --out features/siglip; "
        "distilvl features --teacher photo_teacher.py:PhotoTeacher --data flickr8k --out features/siglip"
    ),
    "runs/features": "distilvl features --teacher demo --data photos --out runs/features",
    "runs/scenes": "distilvl features --teacher demo --data scenes --out runs/scenes",
    "runs/flickr8k": "distilvl features --teacher demo --data flickr8k --out runs/flickr8k",
    "exported": "distilvl export runs/demo --out exported --data photos",
    "photos.index": "distilvl index photos --model runs/demo --out photos.index",
}


class Workshop:
    """Runs blocks in page folders, with the variables of a user who has installed distilvl and works offline."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.socket = folder, folder / "bin", folder / "socket"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        (folder / "curl").mkdir()
        (folder / "curl" / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n", encoding="utf-8")
        self.bin.mkdir()
        for name in ("distilvl", "python", "pip"):
            self._write_command(name)
        self.workbench = subprocess.Popen(
            [sys.executable, HERE / "workbench.py", self.socket], env=self.variables(folder), start_new_session=True,
            stdin=subprocess.PIPE,
        )  # fmt: skip
        while not self.socket.exists():
            assert self.workbench.poll() is None, "the workbench did not start"
            time.sleep(0.05)
        made = self._run(["python", HERE / "things.py", folder], folder)
        assert made.returncode == 0, made.stderr

    def variables(self, folder: Path) -> dict[str, str]:
        """The environment of a block in `folder`."""
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "TMPDIR") if name in os.environ}
        return kept | VARIABLES | {
            "PATH": f"{self.bin}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder), "XDG_CACHE_HOME": str(self.folder / "cache"), "CURL_HOME": str(self.folder / "curl"),
            "HF_HUB_CACHE": str(self.folder / "hub"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
            "BROWSER": "true", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
            "WORKBENCH": str(self.socket), "DOCS_PORT": self.port,
        }  # fmt: skip

    def open_page(self, begins_with: list[str]) -> Path:
        """A folder for a page, with what is always there and what the page says it begins with."""
        folder = self.folder / f"page-{len(list(self.folder.glob('page-*')))}"
        shutil.copytree(self.folder / "page", folder)
        for name in ("scripts", "benchmarks", "examples"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "docs" / "images").mkdir(parents=True)
        for item in begins_with:
            shutil.copytree(self._made(item), folder / item)
        return folder

    def _made(self, item: str) -> Path:
        """Where an item of `MADE` lies, made once for all pages."""
        place = self.folder / "made"
        if not place.exists():
            shutil.copytree(self.folder / "page", place)
        if not (place / item).exists():
            done = self._run(["bash", "-ec", MADE[item]], place)
            assert done.returncode == 0, (item, done.stderr)
        return place / item

    def run(self, block: Block, folder: Path) -> str:
        """Run a block as printed; what went wrong, or nothing."""
        # The port of the docs may be taken on this machine.
        text = re.sub(r"\b127\.0\.0\.1:8000\b", f"127.0.0.1:{self.port}", block.text)
        if block.language == PYTHON:
            (folder / "block.py").write_text(text, encoding="utf-8")
            command = ["python", "block.py"]
        else:
            # Variables that a block sets are there in the next one, as in a terminal.
            kept = f"set -a; [ ! -f .variables ] || . ./.variables\n{text}\nexport -p > .variables"
            command = ["bash", "-euo", "pipefail", "-c", kept]
        try:
            done = self._run(command, folder)
        except subprocess.TimeoutExpired as late:
            return f"{block}: {late}"
        if done.returncode == 0:
            return ""
        return f"{block}: exit code {done.returncode}\n{block.text}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"

    def close_page(self, folder: Path) -> str:
        """End the server that the blocks left running; what was wrong with its end, or nothing."""
        done = self._run([sys.executable, HERE / "command.py", "stop-server"], folder)
        shutil.rmtree(folder)
        return "" if done.returncode == 0 else f"the server ended with exit code {done.returncode}"

    def close(self) -> None:
        """End what still runs."""
        self.workbench.communicate()

    def _run(self, command: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), cwd=folder, env=self.variables(folder), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    def _write_command(self, name: str) -> None:
        path = self.bin / name
        quick = "" if name == "pip" else "-S"  # pip looks into the installed packages
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -s {quick} "{HERE / "command.py"}" {name} "$@"\n')
        path.chmod(0o755)
