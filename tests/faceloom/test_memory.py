"""The memory limit, in processes of their own."""

import subprocess
import sys

_START = """
import time
from faceloom.memory import MemoryLimitError, limit_memory, resident_mib
limit_memory(int(resident_mib()) + 200)
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _START + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_call_that_grows_beyond_the_limit_is_told_and_the_process_lives_on() -> None:
    done = _run("""
held = []
try:
    while True:
        held.append(b"x" * (20 << 20))
        time.sleep(0.05)
except MemoryLimitError as error:
    held.clear()
    time.sleep(0.5)
    print("told", error)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("told the process has grown beyond")


def test_a_process_that_does_not_listen_is_killed() -> None:
    done = _run("""
held = []
while True:
    try:
        held.append(b"x" * (20 << 20) if len(held) < 20 else b"")
        time.sleep(0.05)
    except MemoryLimitError:
        pass
""")
    assert done.returncode == -9


def test_a_process_below_its_limit_is_left_alone() -> None:
    done = _run("held = b'x' * (50 << 20); time.sleep(1); print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
