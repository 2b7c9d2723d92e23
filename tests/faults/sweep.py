"""Every write of every command fails once, or kills the process; then the command runs again and has to end the same.

    python tests/faults/sweep.py [COMMAND ...] [--every 1] [--seed 0]

Of the n operations of a command on its folder each in turn fails as a full disk does, as a failing disk, and by a kill.
What is right: exit code 0 or 2, one line that says what is wrong, no traceback; the same command, run again, ends well
and leaves the same bytes as one that was never disturbed, and no temporary file. Prints a table and each fault; exit
code 1 where there is one.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from commands import COMMANDS, Bench, content, left_behind
from runner import Runner

FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "kill": 0}


@dataclass
class Swept:
    """What came of one command."""

    name: str
    operations: int = 0
    tried: int = 0
    faults: list[str] = field(default_factory=list)


class Sweep(Bench):
    """The commands, disturbed."""

    def command(self, name: str, every: int = 1, seed: int = 0) -> Swept:
        """Sweep one; with `every` more than 1 only so many-th of the operations, which `seed` draws."""
        self.prepare(COMMANDS[name].needs)
        self.fresh()
        whole = self.run(COMMANDS[name].argv(self.shop))
        assert whole.code == 0 and whole.count is not None, whole.said  # noqa: PT018
        swept = Swept(name, whole.count)
        expected = content(self.shop.out)
        for n in _drawn(whole.count, every, seed):
            for kind, error in FAULTS.items():
                found = self._point(name, n, kind, error, expected)
                swept.tried += 1
                if found is not None:
                    swept.faults.append(f"{name}: operation {n} of {whole.count}, {kind}: {found}")
        return swept

    def _point(self, name: str, n: int, kind: str, error: int, expected: dict[str, str]) -> str | None:
        self.fresh()
        hurt = self.run(COMMANDS[name].argv(self.shop), n, error)
        if kind == "kill":
            if not hurt.is_killed and hurt.code != 0:
                return f"not killed: {hurt.fault()}\n{hurt.said[-300:]}"
        elif (problem := hurt.fault()) is not None:
            return f"{problem}\n{hurt.said[-300:]}"
        again = self.run(COMMANDS[name].argv(self.shop))
        if (problem := again.fault(may_fail=False)) is not None:
            return f"run again: {problem}\n{again.said[-300:]}"
        found = content(self.shop.out)
        if found != expected:
            differing = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
            return f"other bytes in {', '.join(sorted(differing))}"
        left = left_behind(self.shop.path)
        for path in (self.shop.path / name for name in left):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return f"left behind: {', '.join(left)}" if left else None


def _drawn(count: int, every: int, seed: int) -> Iterator[int]:
    numbers = range(1, count + 1)
    yield from numbers if every == 1 else sorted(random.Random(seed).sample(numbers, max(1, count // every)))


def main() -> int:
    """Sweep and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []], default=[])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder)) as runner:
        sweep = Sweep(Path(folder), runner)
        for name in args.commands or COMMANDS:
            swept = sweep.command(name, args.every, args.seed)
            told = f"{name}: {swept.operations} operations, {swept.tried} faults, {len(swept.faults)} fell"
            sys.stdout.write("\n".join([told, *swept.faults]) + "\n")
            sys.stdout.flush()
            found.append(swept)
    if args.json:
        args.json.write_text(json.dumps([vars(swept) for swept in found], indent=2) + "\n", encoding="utf-8")
    return int(any(swept.faults for swept in found))


if __name__ == "__main__":
    sys.exit(main())
