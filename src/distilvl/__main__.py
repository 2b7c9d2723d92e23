"""The `distilvl` command, and `python -m distilvl` for launchers that start a module."""

import os
import sys

# What glibc is told before a process starts: keep freed memory, and ask for huge pages.
#
# The maps between a tower's layers are allocated and freed at every step. By default glibc gives each back to the
# system, which then clears its pages anew one by one: on two cores of a virtual machine, half to two thirds of the time
# in which EfficientNet-Lite1 reads photographs (`benchmarks/frozen_tower.py`).
_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=4294967296"
# A server runs for long: the memory of large pictures goes back to the system as soon as each is done.
_GIVING_BACK = "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=16777216"


def main() -> None:
    """The command line, in a process whose memory is fit for what it does."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command and command != "search" and not command.startswith("-"):  # a search is over soon
        _start_again(_GIVING_BACK if command == "serve" else _TUNABLES)
    from distilvl.cli import main as run

    run()


def _start_again(tunables: str = _TUNABLES) -> None:
    """Replace this process by one with `GLIBC_TUNABLES`, on Linux with glibc, unless the user has set it."""
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # another library, such as musl
        return
    os.environ["GLIBC_TUNABLES"] = tunables
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # it goes on without
        return


if __name__ == "__main__":
    main()
