"""The `distilvl` command, and `python -m distilvl` for launchers that start a module."""

import os
import sys

# What glibc is told before a process starts: keep freed memory, and ask for huge pages.
#
# The maps between a tower's layers are allocated and freed at every step. By default glibc gives each back to the
# system, which then clears its pages anew one by one: on two cores of a virtual machine, half to two thirds of the time
# in which EfficientNet-Lite1 reads photographs (`benchmarks/frozen_tower.py`).
_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=4294967296"
_WITHOUT = {"search", "serve"}  # the one is over soon, and the other runs for long: its memory goes back


def main() -> None:
    """The command line, in a process whose memory is fit for towers on a CPU."""
    if len(sys.argv) > 1 and sys.argv[1] not in _WITHOUT and not sys.argv[1].startswith("-"):
        _start_again()
    from distilvl.cli import main as run

    run()


def _start_again() -> None:
    """Replace this process by one with `GLIBC_TUNABLES`, on Linux with glibc, unless the user has set it."""
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # another library, such as musl
        return
    os.environ["GLIBC_TUNABLES"] = _TUNABLES
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # it goes on without
        return


if __name__ == "__main__":
    main()
