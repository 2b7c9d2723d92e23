from __future__ import annotations

import multiprocessing
import os

from distilvl.io.files import is_dead_here, machine_id, writer_id


def test_this_process_is_alive_and_an_ended_one_is_not():
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    assert not is_dead_here(writer_id())
    assert is_dead_here(f"m{machine_id()}-p{process.pid}-rest")
    assert writer_id() == f"m{machine_id()}-p{os.getpid()}"


def test_other_machines_are_not_judged():
    other = "0" * 12
    assert machine_id() != other
    assert not is_dead_here(f"m{other}-p999999-rest")


def test_what_no_writer_wrote_is_nobodys():
    assert is_dead_here("image-00000-3f9c.npy")
