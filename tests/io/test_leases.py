from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.io import leases as module
from distilvl.io.leases import Leases, only_writer

OTHER = "m000000000000-p17-deadbeef"


def test_a_claim_is_held_by_one_writer_and_free_afterwards(tmp_path: Path):
    first, second = Leases(tmp_path), Leases(tmp_path)
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
    claim = Leases(tmp_path).take("block")
    assert claim is not None
    with pytest.raises(ZeroDivisionError), claim:
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def _take_and_die(folder: Path) -> None:
    claim = Leases(folder).take("block")
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
            Leases(tmp_path).sweep()
        else:
            claim = Leases(tmp_path).take("block")
            assert claim is not None
            with claim:
                pass
        assert list(tmp_path.iterdir()) == []


def test_another_machines_claim_is_respected_while_its_owner_touches_it(tmp_path: Path):
    path = tmp_path / ".claim-block"
    path.write_text(OTHER)
    claims = Leases(tmp_path, stale_s=0.1)
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
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    claim = Leases(tmp_path).take("block")
    assert claim is not None
    path = tmp_path / ".claim-block"
    os.utime(path, (1, 1))
    with claim:
        deadline = time.monotonic() + 30
        while path.stat().st_mtime < 1000:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_claim_that_was_taken_over_is_left_to_its_new_owner(tmp_path: Path):
    claim = Leases(tmp_path).take("block")
    assert claim is not None
    with claim:
        (tmp_path / ".claim-block").write_text(OTHER)
    assert (tmp_path / ".claim-block").read_text() == OTHER


def test_sweep_keeps_what_may_be_alive(tmp_path: Path):
    (tmp_path / ".claim-other").write_text(OTHER)
    (tmp_path / ".claim-new").write_text("")
    (tmp_path / ".claim-old").write_text(OTHER)
    os.utime(tmp_path / ".claim-old", (1, 1))
    Leases(tmp_path).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".claim-new", ".claim-other"]


def test_a_disk_that_takes_nothing(tmp_path: Path):
    with pytest.raises(DistilvlError, match="cannot write"):
        Leases(tmp_path / "missing").take("block")


def _count(folder: Path, rounds: int, results: object) -> None:
    claims = Leases(folder)
    won = []  # held until the process ends: nobody else may get them
    for number in range(rounds):
        claim = claims.take(f"block-{number}")
        if claim is not None:
            claim.__enter__()
            won.append(claim)
    results.put(len(won))
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


def _hold(folder: Path, started: object, seconds: float) -> None:
    with only_writer(folder):
        started.set()
        time.sleep(seconds)


def test_a_second_writer_waits_for_the_first(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, started, 0.5))
    process.start()
    assert started.wait(10)
    begin = time.monotonic()
    with only_writer(tmp_path):
        waited = time.monotonic() - begin
    process.join()
    assert waited > 0.2
    assert list(tmp_path.iterdir()) == []


def _hold_and_die(folder: Path) -> None:
    only_writer(folder).__enter__()
    os._exit(9)


def test_a_killed_writer_holds_the_folder_no_longer(tmp_path: Path):
    process = multiprocessing.get_context("fork").Process(target=_hold_and_die, args=(tmp_path,))
    process.start()
    process.join()
    with only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def _add_one(folder: Path, times: int) -> None:
    for _ in range(times):
        with only_writer(folder):
            count = int((folder / "count").read_text())
            time.sleep(0.001)
            (folder / "count").write_text(str(count + 1))


def test_no_two_writers_hold_a_folder_though_the_lock_file_goes_each_time(tmp_path: Path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_one, args=(tmp_path, 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "count").read_text() == "100"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_folder_that_cannot_be_locked_is_written_to_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("a read-only disk")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with only_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []
