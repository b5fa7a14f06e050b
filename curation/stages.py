"""Which stage a clip is in, and what each stage cost: for blame, for telemetry, for benchmarks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Wall and CPU seconds by stage of one clip. ``current`` outlives an exception, so that it names the stage to blame.

    ``traceback`` is where it failed, once it has.
    """

    def __init__(self) -> None:
        self.current = "start"
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self.traceback: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what happens inside to ``name``."""
        self.current = name
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - cpu
