"""What the machine grants this process: cores, memory, and turns at work that needs much of it."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from carvana.errors import CarvanaError

SHARE = 3  # of the free memory, one part in so many may be in use for photographs at once
_CGROUPS = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    for folder in _cgroups("cpu"):
        quota = _words(folder / "cpu.max")
        quota = quota or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0].isdecimal():  # neither "max" nor -1
            count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(count, 1)


def cpuinfo() -> str:
    """Return what Linux says of the processor; "" elsewhere."""
    return "\n".join(_lines(_CPUINFO))


def check_processor() -> None:
    """Make sure that TensorFlow can run; raises CarvanaError on an x86 processor without AVX."""
    flags = re.search(r"^flags\s*: (.*)", cpuinfo(), re.MULTILINE)
    if flags and "avx" not in flags[1].split():
        raise CarvanaError(
            "this processor has no AVX, which TensorFlow needs; use another machine (in a virtual "
            "one, pass the host's processor through)"
        )


def free_memory() -> int:
    """Return the bytes that are free for this process, by its machine and its container's limit."""
    lines = _lines(Path("/proc/meminfo"))
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    for folder in _cgroups("memory"):
        stat = "\n".join(_lines(folder / "memory.stat"))
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            words = _words(folder / limit) + _words(folder / used)
            if len(words) == 2 and words[0].isdecimal():  # files that were read are given up first
                cached = re.search(rf"^{cache} (\d+)$", stat, re.MULTILINE)
                free.append(int(words[0]) - int(words[1]) + int(cached[1] if cached else 0))
    return max(min(free, default=2**32), 0)


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders that hold this process's limits: its own group's and those above it."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = _CGROUPS / controller if controllers else _CGROUPS
            group = top / path.lstrip("/")
            yield from (group, *(above for above in group.parents if above.is_relative_to(top)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


class Turns:
    """Lets work that needs memory begin only while what is at work needs less than a limit.

    Work that needs more than the limit waits until it is alone.

    Args:
        limit: bytes; a third of what is free when None.
    """

    def __init__(self, limit: int | None = None):
        self.limit = free_memory() // SHARE if limit is None else limit
        self._used = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Wait for a turn, and hold it while the block runs; `needed` is in bytes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + needed <= self.limit)
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()
