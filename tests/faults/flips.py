"""One byte of an artefact is another one: whoever reads it gives the same answer as before, or refuses it by name.

    python tests/faults/flips.py [ARTEFACT ...] [--places 200] [--seed 0]

The places are drawn among all bytes of the files, each file as likely as another, so that small ones (manifests,
settings) are hit as often as large ones. Prints a table and each silent change; exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from commands import COMMANDS, Bench, Workshop, content
from runner import Outcome, Runner


@dataclass(frozen=True)
class Artefact:
    """Something that is on disk, and a command that reads it."""

    needs: tuple[str, ...]
    folder: Callable[[Workshop], Path]
    reads: Callable[[Workshop], Sequence[str]]
    made_by: str | None = None  # one of `COMMANDS`, whose output it is
    writes: bool = False  # the answer is what it writes into `answer`, not what it prints


ARTEFACTS: dict[str, Artefact] = {
    "store": Artefact(
        ("store",), lambda shop: Path(shop.made("store")),
        lambda shop: ["features", "merge", shop.made("store"), "--out", shop.made("answer")], writes=True,
    ),
    "store-scored": Artefact(
        ("store",), lambda shop: Path(shop.made("store")),
        lambda shop: ["eval", shop.made("store"), "--data", str(shop.data), "--split", "train", "--json"],
    ),
    "student": Artefact(
        ("store", "run"), lambda shop: Path(shop.made("run")) / "student",
        lambda shop: ["embed", shop.made("run/student"), str(shop.data), "--out", shop.made("answer")], writes=True,
    ),
    "run": Artefact(
        ("store", "run"), lambda shop: Path(shop.made("run")),
        lambda shop: ["eval", shop.made("run"), "--data", str(shop.data), "--split", "train", "--json"],
    ),
    "export": Artefact(
        ("store", "run"), lambda shop: shop.out,
        lambda shop: ["eval", str(shop.out), "--data", str(shop.data), "--split", "train", "--json"], made_by="export",
    ),
    "index": Artefact(
        ("store", "run"), lambda shop: shop.out,
        lambda shop: ["search", str(shop.out), "one dog alone", "--json"], made_by="index",
    ),
}  # fmt: skip


@dataclass
class Flipped:
    """What came of one artefact."""

    name: str
    places: int = 0
    refused: int = 0
    silent: list[str] = field(default_factory=list)


class Flips(Bench):
    """The artefacts, with a bit changed."""

    def _answer(self, artefact: Artefact) -> tuple[Outcome, object]:
        for left in self.shop.path.glob("answer*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        done = self.run(artefact.reads(self.shop))
        if artefact.writes and done.code == 0:
            found = sorted(self.shop.path.glob("answer*"))
            return done, {one.name: content(one) if one.is_dir() else one.read_bytes() for one in found}
        return done, _without_seconds(done.said)

    def artefact(self, name: str, places: int, seed: int = 0) -> Flipped:
        """Flip one byte at each of so many places."""
        artefact, flipped, drawn = ARTEFACTS[name], Flipped(name), random.Random(seed)
        self.prepare(artefact.needs)
        if artefact.made_by is not None:
            self.fresh()
            assert self.run(COMMANDS[artefact.made_by].argv(self.shop)).code == 0
        folder = artefact.folder(self.shop)
        first, expected = self._answer(artefact)
        assert first.code == 0, first.said
        whole = folder.with_name("whole")
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(folder, whole)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        for _ in range(places):
            name_of = drawn.choice(files)
            data = bytearray((whole / name_of).read_bytes())
            place, bit = drawn.randrange(len(data)), 1 << drawn.randrange(8)
            data[place] ^= bit
            (folder / name_of).write_bytes(data)
            done, found = self._answer(artefact)
            flipped.places += 1
            flipped.refused += done.code == 2
            if (problem := done.fault()) is not None:
                flipped.silent.append(f"{name}/{name_of} byte {place} ^ {bit}: {problem}\n{done.said[-300:]}")
            elif done.code == 0 and found != expected:
                flipped.silent.append(f"{name}/{name_of} byte {place} ^ {bit}: another answer")
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
        return flipped


def _without_seconds(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if " s left" not in line and "seconds" not in line)


def main() -> int:
    """Flip and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefacts", nargs="*", choices=[*ARTEFACTS, []], default=[])
    parser.add_argument("--places", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    silent = 0
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder)) as runner:
        flips = Flips(Path(folder), runner)
        for name in args.artefacts or ARTEFACTS:
            found = flips.artefact(name, args.places, args.seed)
            told = f"{name}: {found.places} places, {found.refused} refused, {len(found.silent)} fell"
            sys.stdout.write("\n".join([told, *found.silent]) + "\n")
            sys.stdout.flush()
            silent += len(found.silent)
    return int(silent > 0)


if __name__ == "__main__":
    sys.exit(main())
