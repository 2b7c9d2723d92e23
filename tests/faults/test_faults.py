"""A sample of what `make faults` does in whole: failing disks, kills, flipped bytes, files that are almost right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the shim is for Linux", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parent))

from attacks import Server, attacks
from commands import COMMANDS
from flips import ARTEFACTS, Flips
from fuzz import TARGETS, Fuzz
from hostile import attacked, ended, served
from runner import Runner, compiler
from sweep import Sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="no C compiler: apt-get install gcc, or pip install ziglang"),
]
SEED = 20261130
SHORT = {
    "1.4 million unknown keys",
    "a PNG that lacks its rows",
    "a JPEG of 90 scans",
    "an index made anew and taken away",
}
EVERY = {"report": 4, "export": 6, "reproduce": 22}  # those that take seconds; of the others every twelfth operation


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("runner")) as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def sweep(runner: Runner, place: Path) -> Sweep:
    return Sweep(place / "sweep", runner)


@pytest.fixture(scope="module")
def flips(runner: Runner, place: Path) -> Flips:
    return Flips(place / "flips", runner)


@pytest.fixture(scope="module")
def fuzz(runner: Runner, place: Path) -> Fuzz:
    return Fuzz(place / "fuzz", runner)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disturbed_command_says_so_in_a_line_and_ends_the_same_when_it_runs_again(sweep: Sweep, name: str) -> None:
    assert sweep.command(name, every=EVERY.get(name, 12), seed=SEED).faults == []


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_flipped_byte_is_refused_or_changes_nothing(flips: Flips, name: str) -> None:
    assert flips.artefact(name, places=12, seed=SEED).silent == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_that_is_almost_right_is_taken_or_refused_in_a_line(fuzz: Fuzz, name: str) -> None:
    assert fuzz.target(name, range(6), SEED) == []


def test_the_harness_sees_a_fault(runner: Runner, sweep: Sweep) -> None:
    command = COMMANDS["features"].argv(sweep.shop)
    sweep.fresh()
    undisturbed = runner.run(command, sweep.shop.path)
    assert (undisturbed.code, undisturbed.fault()) == (0, None)
    assert undisturbed.count
    assert runner.run(["features", "--nonsense"], sweep.shop.path).fault() == "0 lines of error"
    assert runner.run(command, sweep.shop.path / "elsewhere").count == 0


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with served(place / "served") as started:
        yield started


@pytest.mark.parametrize("name", sorted(SHORT))
def test_a_hostile_client_is_answered_and_keeps_no_other_out(server: Server, name: str) -> None:
    attack, expected = attacks()[name]
    assert attacked(server, name, attack, expected, rest=0).faults == []


def test_a_server_that_decodes_ends_when_told_to(place: Path) -> None:
    with served(place / "told") as server:
        assert ended(server) < 60
