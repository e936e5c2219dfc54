"""Pages that the kernel clears again, counted in processes of their own: the setting is the whole process's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from impq_opt.memory import _glibc, kept_memory

# Blocks of 1 MiB and of 40 MiB: below and above what the C library maps at most when it is left alone.
WORLD = """
import ctypes, json, resource, threading
from impq_opt.memory import kept_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def faults(size, times=10):
    "Pages that the kernel had to clear while a block was taken, written and freed so many times, after a first time."
    for time in range(times + 1):
        block = libc.malloc(size)
        libc.memset(block, 1, size)
        libc.free(block)
        if time == 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

LARGE, SMALL = 40 << 20, 1 << 20
"""


def run(program: str, **environment: str) -> Any:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", WORLD + program], env=plain | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


needs_glibc = pytest.mark.skipif(_glibc() is None, reason="another C library, or settings of the user's own")


@needs_glibc
def test_no_page_is_cleared_twice_inside() -> None:
    outside, inside = run("""
outside = faults(LARGE)
with kept_memory():
    print(json.dumps([outside, faults(LARGE)]))
""")
    assert inside < outside / 10


@needs_glibc
def test_freed_memory_goes_back_when_the_last_one_leaves() -> None:
    within, still, after = run("""
with kept_memory():
    first = faults(LARGE)
    with kept_memory():
        within = faults(LARGE)
    still, held = faults(LARGE), resident()
freed = held - resident()
print(json.dumps([within, still, [faults(LARGE), faults(SMALL), freed]]))
""")
    assert within < 100
    assert still < 100  # the inner one did not end the outer one's
    large, small, freed = after
    assert large > 1000  # mapped for each use, and given back
    assert small < 100  # as in a process that has freed large blocks before: not slower than it was
    assert freed > 30 << 20


@needs_glibc
def test_threads_share_the_setting() -> None:
    inside = run("""
entered, leave = threading.Event(), threading.Event()
def other():
    with kept_memory():
        entered.set(); leave.wait()
thread = threading.Thread(target=other)
thread.start(); entered.wait()
with kept_memory():
    pass
print(json.dumps(faults(LARGE)))
leave.set(); thread.join()
""")
    assert inside < 100


@needs_glibc
@pytest.mark.parametrize(
    "environment", [{"MALLOC_MMAP_MAX_": "1000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=1000"}]
)
def test_what_the_user_set_stays(environment: Any) -> None:
    inside = run(
        """
with kept_memory():
    print(json.dumps(faults(LARGE)))
""",
        **environment,
    )
    assert inside > 1000


def test_it_is_left_after_an_error_too() -> None:
    from impq_opt import memory

    with pytest.raises(ZeroDivisionError), kept_memory():
        raise ZeroDivisionError
    assert memory._stays.count == 0


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.memory._glibc", lambda: None)
    with kept_memory(), kept_memory():
        pass
