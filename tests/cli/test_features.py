"""`distilvl features` and its three subcommands, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore, Manifest
from distilvl.io.hashes import text_key

KEYS = [text_key(str(k)) for k in range(4)]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["features", *map(str, arguments)])
    if isinstance(result.exception, DistilvlError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def stores(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, part in zip(paths, (slice(0, 3), slice(2, 4)), strict=True):
        store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=4))
        store.add("text", KEYS[part], np.eye(4)[part])
    return paths


def test_verify(stores: list[Path]):
    assert f"{stores[0]} is whole: 0 images and 3 captions in 1 shards" in run("verify", *stores)
    assert json.loads(run("verify", stores[1], "--json"))[str(stores[1])]["texts"] == 2
    shard = next(stores[1].glob("text-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DistilvlError, match="checksum"):
        run("verify", *stores)


def test_merge(stores: list[Path], tmp_path: Path):
    assert "holds 0 images and 4 captions" in run("merge", *stores, "--out", tmp_path / "c")
    assert json.loads(run("merge", *stores, "--out", tmp_path / "c", "--json"))["texts"] == 4
    assert FeatureStore.open(tmp_path / "c").verify().shards == 1


def test_info(stores: list[Path]):
    assert "teacher: t\n" in run("info", stores[0])
    told = json.loads(run("info", *stores, f"concat:{stores[0]},{stores[1]}", "--json"))
    assert [entry["dim"] for entry in told] == [4, 4, 8]
    assert [entry["texts"] for entry in told] == [3, 2, 1]


@pytest.mark.parametrize("missing", ["--teacher", "--data", "--out"])
def test_the_plain_call_needs_its_options(missing: str, tmp_path: Path):
    options = {"--teacher": "demo", "--data": "scenes", "--out": str(tmp_path / "out")}
    given = [word for name, value in options.items() if name != missing for word in (name, value)]
    result = CliRunner().invoke(app, ["features", *given])
    assert result.exit_code == 2
    assert missing in result.output


@pytest.mark.parametrize("command", ["verify", "merge", "info"])
def test_every_subcommand_has_an_example(command: str):
    result = CliRunner().invoke(app, ["features", command, "--help"])
    assert f"Example: distilvl features {command}" in " ".join(result.output.split())


def test_estimate_of_a_teacher_that_costs_nothing(tmp_path: Path):
    with pytest.raises(DistilvlError, match="costs nothing but time"):
        run("--teacher", "demo", "--data", "scenes", "--split", "test", "--out", tmp_path / "out", "--estimate")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--ray-workers", "2"), ("--ray-address", "auto")])
def test_options_of_a_cluster_need_its_engine(option: tuple[str, str], tmp_path: Path):
    words = ["features", "--teacher", "demo", "--data", "scenes", "--out", str(tmp_path / "out"), *option]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Only with --engine ray" in " ".join(result.output.split())
