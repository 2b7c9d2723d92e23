"""`distilvl doctor`: what is installed, what each extra lacks, and a self-test, in a form to paste into an issue."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option, echo

from distilvl._version import __version__
from distilvl.cli.shared import AsJson, app, clean_stdout, print_json
from distilvl.errors import DistilvlError

if TYPE_CHECKING:
    from distilvl.data import PairDataset

_SCENES = (64, 16, 16)  # train, val, test


@app.command(epilog="Example: distilvl doctor --test")
def doctor(
    test: Annotated[
        bool, Option("--test", help="Extract, fit, train, export and search on drawn pictures, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is installed, which devices there are and what each extra lacks; exit code 1 where a test fails."""
    found = _environment()
    if test:
        with clean_stdout():
            found["test"] = _tested(set(found["extras"]))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any("error" in step for step in found.get("test", ())):
        raise Exit(1)


def _environment() -> dict[str, Any]:
    """System, device, versions of what is required, and what each extra lacks."""
    from distilvl.training.distributed import resolve_precision

    packages, extras = _packages()
    return {
        "distilvl": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "memory_gib": _memory(),
        "device": _device(),
        "precision": resolve_precision("auto"),
        "packages": packages,
        "extras": extras,
    }


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return "mps" if torch.backends.mps.is_available() else f"cpu, {torch.get_num_threads()} threads"


def _memory() -> float | None:
    """GiB of memory; none where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _packages() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Versions of the required packages, and by extra what is missing or too old; nothing is imported."""
    from importlib.metadata import metadata, requires

    from packaging.requirements import Requirement

    if _version("distilvl") is None:
        raise DistilvlError("distilvl is not installed, it runs from its source.", "Run: pip install -e .")
    needed = [Requirement(line) for line in requires("distilvl") or ()]
    extras = set(metadata("distilvl").get_all("Provides-Extra") or ()) - {"dev", "docs", "all"}
    here = {"extra": ""}
    packages = {one.name: _version(one.name) or "MISSING" for one in needed if one.marker is None}
    lacks = {
        extra: [
            str(one).partition(";")[0].strip()
            for one in needed
            if one.marker is not None and not one.marker.evaluate(here) and one.marker.evaluate({"extra": extra})
            and not one.specifier.contains(_version(one.name) or "0", prereleases=True)
        ]
        for extra in sorted(extras)
    }  # fmt: skip
    return packages, lacks


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(found: dict[str, Any]) -> None:
    memory = "" if found["memory_gib"] is None else f", {found['memory_gib']} GiB"
    echo(f"distilvl {found['distilvl']}, Python {found['python']}, {found['system']}")
    echo(f"{found['processors']} processors{memory}; device {found['device']}; precision {found['precision']}")
    echo("packages: " + ", ".join(f"{name} {one}" for name, one in sorted(found["packages"].items())))
    there = [extra for extra, lacking in found["extras"].items() if not lacking]
    echo(f"extras there: {', '.join(there) or 'none'}")
    for extra, lacking in found["extras"].items():
        if lacking:
            echo(f"extra {extra} lacks {', '.join(lacking)}: pip install 'distilvl[{extra}]'")
    for step in found.get("test", ()):
        told = step.get("error") or step.get("left_out") or f"{step['seconds']:.1f} s"
        echo(f"test {step['step']}: {'FAILED, ' if 'error' in step else ''}{told}")


def _tested(known: set[str]) -> list[dict[str, Any]]:
    """Each step with its seconds, or its error; what needs an extra that lacks something is left out."""
    from distilvl.data.scenes import scenes_dataset

    lacks, done = _packages()[1], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        for step, (extra, work) in _steps(scenes_dataset(*_SCENES), Path(name)).items():
            started = time.monotonic()
            if extra in known and lacks[extra]:
                done.append({"step": step, "left_out": f"left out, needs 'distilvl[{extra}]'"})
                continue
            try:
                work()
            except Exception as error:  # whatever it is, it is what the user came to find
                told = str(error) if isinstance(error, DistilvlError) else f"{type(error).__name__}: {error}"
                sys.stderr.write(f"{step}: {told}\n")
                done.append({"step": step, "error": " ".join(told.split())[:300]})
                break
            done.append({"step": step, "seconds": round(time.monotonic() - started, 2)})
    return done


def _steps(data: PairDataset, folder: Path) -> dict[str, tuple[str, Callable[[], object]]]:
    """By name: the extra that it needs, and what it does; each builds on those before."""
    import distilvl
    from distilvl.search import index_folder

    store, run, photos = folder / "store", folder / "run", folder / "photos"
    short = ["training.epochs=1", "training.batch_size=16"]

    def search() -> None:
        photos.mkdir()
        for number, record in enumerate(data.split("val")):
            (photos / f"{number}.png").write_bytes(record.image.read())
        index_folder(photos, folder / "index", run)
        hits = distilvl.Index.open(folder / "index").search("a red circle", top=3)
        if len(hits) != 3:
            raise DistilvlError(f"the search found {len(hits)} of 3.", "")

    return {
        "extract": ("", lambda: distilvl.extract_features("demo", data, store)),
        "fit": ("", lambda: distilvl.fit(features=store, data=data, student="demo", out=folder / "fitted")),
        "train": (
            "",
            lambda: distilvl.train(
                features=store, data=data, recipe="demo", student="demo", out=run, overrides=short
            ),
        ),
        "export": ("export", lambda: distilvl.export_student(run, folder / "exported", data)),
        "search": ("search", search),
    }  # fmt: skip
