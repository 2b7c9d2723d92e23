"""Archives of npm: pinned, checked, read without a path of theirs reaching the disk."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from distilvl.browser.npm import PACKAGES, Package, web_files
from distilvl.errors import DistilvlError


def packed(folder: Path, *members: tarfile.TarInfo) -> Package:
    """An archive with `package/main.js` and `members`, and what is to be known of it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        good = tarfile.TarInfo("package/main.js")
        good.size = 5
        tar.addfile(good, io.BytesIO(b"hello"))
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    digest = base64.b64encode(hashlib.sha512(out.getvalue()).digest()).decode()
    package = Package("@scope/thing", "1.2.3", digest, {"package/main.js": "thing.js"})
    (folder / package.archive).write_bytes(out.getvalue())
    return package


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    outside = tarfile.TarInfo("../../outside.js")
    outside.size = 3
    package = packed(tmp_path, outside)
    assert package.archive == "scope-thing-1.2.3.tgz"
    assert package.path == "@scope/thing/-/thing-1.2.3.tgz"
    assert web_files(tmp_path, (package,)) == {"thing.js": b"hello"}
    assert [path.name for path in tmp_path.iterdir()] == [package.archive]


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("package/link.js")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    package = replace(packed(tmp_path, link), files={"package/link.js": "link.js"})
    with pytest.raises(DistilvlError, match="no plain file"):
        web_files(tmp_path, (package,))


def test_a_changed_archive_is_not_opened(tmp_path: Path) -> None:
    package = packed(tmp_path)
    path = tmp_path / package.archive
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DistilvlError, match="SHA-512"):
        web_files(tmp_path, (package,))


def test_a_missing_archive_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match=r"npm pack onnxruntime-web@"):
        web_files(tmp_path)


def test_what_the_archive_lacks_is_named(tmp_path: Path) -> None:
    package = replace(packed(tmp_path), files={"package/other.js": "other.js"})
    with pytest.raises(DistilvlError, match=r"lacks other\.js"):
        web_files(tmp_path, (package,))


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "distilvl" / "npm"
    folder.mkdir(parents=True)
    package = packed(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1")
    assert web_files(packages=(package,)) == {"thing.js": b"hello"}
    (folder / package.archive).write_bytes(b"damaged")
    with pytest.raises(DistilvlError, match="not one of HTTPS"):
        web_files(packages=(package,))


def test_a_fetched_archive_that_is_not_the_pinned_one_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packed(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("distilvl.browser.npm.shutil.which", lambda name: None)
    monkeypatch.setattr("distilvl.browser.npm.urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"else"))
    with pytest.raises(DistilvlError, match="SHA-512"):
        web_files(packages=(package,))
    assert not (tmp_path / "cache").exists()
    good = (tmp_path / package.archive).read_bytes()
    asked: list[str] = []
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://example.org/npm/")
    monkeypatch.setattr(
        "distilvl.browser.npm.urllib.request.urlopen", lambda url, timeout: asked.append(url) or io.BytesIO(good)
    )
    assert web_files(packages=(package,)) == {"thing.js": b"hello"}
    assert asked == ["https://example.org/npm/@scope/thing/-/thing-1.2.3.tgz"]
    assert (tmp_path / "cache" / "distilvl" / "npm" / package.archive).read_bytes() == good


def test_versions_are_exact() -> None:
    for package in PACKAGES:
        assert len(base64.b64decode(package.sha512)) == 64
        assert package.version.replace(".", "").isdigit()
