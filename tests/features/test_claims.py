from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.io import leases as claims_module
from distilvl.io.leases import Claims

OTHER = "m000000000000-p17-deadbeef"


def test_a_claim_is_held_by_one_writer_and_free_afterwards(tmp_path: Path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = first.take("block")
    assert claim is not None
    with claim:
        assert second.take("block") is None
        other = second.take("another")
        assert other is not None
    again = second.take("block")
    assert again is not None
    with again, other:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_claim_ends_with_an_error(tmp_path: Path):
    claim = Claims(tmp_path).take("block")
    assert claim is not None
    with pytest.raises(ZeroDivisionError), claim:
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def _take_and_die(folder: Path) -> None:
    claim = Claims(folder).take("block")
    assert claim is not None
    claim.__enter__()
    os._exit(9)


def test_a_killed_writers_claim_is_free_at_once(tmp_path: Path):
    for action in ("take", "sweep"):
        process = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(tmp_path,))
        process.start()
        process.join()
        assert len(list(tmp_path.iterdir())) == 1
        if action == "sweep":
            Claims(tmp_path).sweep()
        else:
            claim = Claims(tmp_path).take("block")
            assert claim is not None
            with claim:
                pass
        assert list(tmp_path.iterdir()) == []


def test_another_machines_claim_is_respected_while_its_owner_touches_it(tmp_path: Path):
    path = tmp_path / ".claim-block"
    path.write_text(OTHER)
    claims = Claims(tmp_path, stale_s=0.1)
    assert claims.take("block") is None
    time.sleep(0.15)
    os.utime(path, (1, 1))  # touched: by whatever clock
    assert claims.take("block") is None
    time.sleep(0.15)
    claim = claims.take("block")
    assert claim is not None
    with claim:
        assert path.read_text() != OTHER
    assert list(tmp_path.iterdir()) == []


def test_the_owner_touches_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claims_module, "HEARTBEAT_S", 0.02)
    claim = Claims(tmp_path).take("block")
    assert claim is not None
    path = tmp_path / ".claim-block"
    os.utime(path, (1, 1))
    with claim:
        deadline = time.monotonic() + 30
        while path.stat().st_mtime < 1000:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_was_taken_over_is_left_to_its_new_owner(tmp_path: Path):
    claim = Claims(tmp_path).take("block")
    assert claim is not None
    with claim:
        (tmp_path / ".claim-block").write_text(OTHER)
    assert (tmp_path / ".claim-block").read_text() == OTHER


def test_sweep_keeps_what_may_be_alive(tmp_path: Path):
    (tmp_path / ".claim-other").write_text(OTHER)
    (tmp_path / ".claim-new").write_text("")
    (tmp_path / ".claim-old").write_text(OTHER)
    os.utime(tmp_path / ".claim-old", (1, 1))
    Claims(tmp_path).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".claim-new", ".claim-other"]


def test_a_disk_that_takes_nothing(tmp_path: Path):
    with pytest.raises(DistilvlError, match="cannot write"):
        Claims(tmp_path / "missing").take("block")


def _count(folder: Path, rounds: int, results: object) -> None:
    claims = Claims(folder)
    won = 0
    for number in range(rounds):
        claim = claims.take(f"block-{number}")
        if claim is not None:
            claim.__enter__()  # held until the process ends: nobody else may get it
            won += 1
    results.put(won)
    results.get_ack.wait(60)


def test_of_many_processes_one_gets_each_claim(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    results.get_ack = context.Event()
    processes = [context.Process(target=_count, args=(tmp_path, 50, results)) for _ in range(4)]
    for process in processes:
        process.start()
    won = [results.get(timeout=60) for _ in processes]
    results.get_ack.set()
    for process in processes:
        process.join(60)
    assert sum(won) == 50
