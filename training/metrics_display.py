"""How a training run is shown: a live bar on a terminal, a plain line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_PLAIN_EVERY_S = 10.0


class Display:
    """One bar a stage; on what is no terminal, a line every 10 s and one for the last step of a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._steps = "", 0
        self._shown_at = -_PLAIN_EVERY_S
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, stage: str, steps: int) -> None:
        """The next stage, of ``steps`` steps."""
        self._stage, self._steps = stage, steps
        if not self._console.is_terminal:
            return
        if self._bar is None:
            columns = (
                TextColumn("{task.fields[stage]}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console)
            self._bar.start()
        self._task = self._bar.add_task("", total=steps, stage=stage)

    def progress(self, done: int, details: str) -> None:
        """``done`` steps of the stage are done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=details)
        elif done == self._steps or time.monotonic() - self._shown_at >= _PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            self.line(f"{self._stage}: {done} of {self._steps} steps; {details}")

    def line(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bars as they are."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
