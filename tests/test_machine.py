"""Cores and memory as a container grants them, and turns at memory."""

import pytest

from carvana import machine
from carvana.errors import CarvanaError
from carvana.machine import cores, free_memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """The files of a container's limits: version 2, or version 1 by controller."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    lines = machine._lines

    def write(listing, files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        fake = lambda path: [listing] if str(path) == "/proc/self/cgroup" else lines(path)  # noqa: E731
        monkeypatch.setattr(machine, "_lines", fake)

    return write


@pytest.mark.parametrize(
    ("listing", "files", "wanted"),
    [
        ("0::/", {"cpu.max": "max 100000\n"}, 64),
        ("0::/", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"}, 64),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "50", "cpu/x/cpu.cfs_period_us": "100"}, 1),
    ],
)
def test_cores_are_those_of_the_container(listing, files, wanted, groups):
    groups(listing, files)
    assert cores() == wanted


def test_memory_is_that_of_the_container(groups):
    groups("0::/", {"memory.max": "max", "memory.current": "7"})
    assert free_memory() > 2**27
    groups("0::/", {"memory.max": "1000000", "memory.current": "400000"})
    assert free_memory() == 600_000
    groups("0::/", {"memory.stat": "anon 300000\ninactive_file 100000\n"})  # given up if needed
    assert free_memory() == 700_000
    v1 = {"memory/x/memory.limit_in_bytes": "90000", "memory/x/memory.usage_in_bytes": "100000"}
    groups("3:memory:/x", v1)
    assert free_memory() == 0


def test_a_processor_on_which_tensorflow_would_abort_is_named(tmp_path, monkeypatch):
    described = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", described)
    described.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2\n")
    machine.check_processor()
    described.write_text("processor\t: 0\nflags\t\t: fpu sse4_2\n")
    with pytest.raises(CarvanaError, match="has no AVX, which TensorFlow needs"):
        machine.check_processor()
    described.write_text("processor\t: 0\nFeatures\t: fp asimd\n")  # of ARM
    machine.check_processor()
