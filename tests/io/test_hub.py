from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from distilvl.io import hub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's process begins; what is found is forgotten afterwards."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    hub.look_for_hub.cache_clear()


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("there", [True, False])
def test_a_hub_that_is_not_reached_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(hub, "_is_there", lambda host, port: asked.append((host, port)) or there)
    hub.look_for_hub()
    hub.look_for_hub()
    assert len(asked) == 1
    assert constants.is_offline_mode() is not there
    hub.look_for_hub.cache_clear()


@pytest.mark.usefixtures("online")
def test_behind_a_proxy_the_library_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    monkeypatch.setattr(hub, "_is_there", lambda *_: pytest.fail("asked"))
    hub.look_for_hub()
    assert not constants.is_offline_mode()
    hub.look_for_hub.cache_clear()


def test_an_address_that_nobody_listens_at_is_told_soon() -> None:
    begun = time.monotonic()
    assert not hub._is_there("localhost", 1)
    assert not hub._is_there("no.such.host.invalid", 443)
    assert time.monotonic() - begun < 4


def test_names_that_are_close(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    assert hub.like_it(str(tmp_path / "featurez")) == f"Did you mean {tmp_path / 'features'}?"
    assert hub.like_it(str(tmp_path / "something")) == ""
    assert hub.like_it(str(tmp_path / "not" / "there")) == ""


def test_a_misspelt_path_is_told_with_the_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "runs" / "features").mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://localhost:1", "HF_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "distilvl", "embed", "runs/featurez", "--text", "a"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Did you mean runs/features?" in done.stderr
    assert "Traceback" not in done.stderr
