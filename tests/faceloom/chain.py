"""Workers that do as they are told, and a procedure that writes down what it was given."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ObjectLostError

from faceloom.engine import Engine, Loss
from faceloom.pool import Stage, Verdict
from faceloom.progress import Progress


@dataclass(frozen=True)
class Item:
    """``orders`` by stage: die, die once, no memory once, fail, bad file, late, hang, hang once, on three nodes, wear,
    lost once; with "second 1", of a part."""

    name: str
    orders: dict[str, str] = field(default_factory=dict)
    parts: int = 1


@dataclass(frozen=True)
class Result:
    item: Item
    error: str | None = None
    history: tuple[str, ...] = ()
    part: int | None = None

    @property
    def name(self) -> str:
        return self.item.name if self.part is None else f"{self.item.name}{self.part}"


class Worker:
    """Obeys, and hands on its payload: the names of the stages an item went through, and its own process."""

    def __init__(self, stage: str, notes: Path) -> None:
        if (notes / f"{stage} cannot start").exists():
            raise RuntimeError(f"no {stage} model")
        for fault in notes.glob(f"{stage} cannot start [0-9]"):
            with suppress(FileNotFoundError):
                fault.unlink()
                raise RuntimeError(f"no {stage} model here")
        self._stage, self._notes = stage, notes
        (notes / f"started {stage}").touch()

    def divide(self, item: Item, most: int) -> list[Any]:
        """A result and a payload of each part; as many payloads as there may be parts."""
        made = [self.do(item, Result(item, part=part), None) for part in range(item.parts)]
        return [[result for result, _ in made], *(payload for _, payload in made), *[None] * (most - item.parts)]

    def do(self, item: Item, result: Result | None, payload: list[str] | None) -> tuple[Result, list[str]]:
        part = result.part if result else None
        order = item.orders.get(self._stage if part is None else f"{self._stage} {part}")
        again = self._noted(item.name if result is None else result.name)
        if order == "die" or (order == "die once" and not again):
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "no memory once" and not again:
            raise MemoryError
        if order == "lost once" and not again:
            raise ObjectLostError("ab" * 28, None, "")
        if order == "late":
            time.sleep(1.2)
        if order == "on three nodes" and (nodes := len(self._notes_of(item.name))) < 3:
            (self._notes / f"on node {nodes - 1}").touch()
            time.sleep(600)
        if order == "hang" or (order == "hang once" and not again):
            time.sleep(600)
        history = (*(result.history if result else ()), self._stage)
        made = Result(item, order if order in ("fail", "bad file") else None, history, part)
        return made, [*(payload or []), made.name]

    def allowance_s(self, item: Item) -> float:
        """As long as it takes."""
        return 60.0 if item.orders.get(self._stage) == "late" else 0.0

    def _notes_of(self, name: str) -> list[str]:
        return (self._notes / f"{self._stage} {name}").read_text().split()

    def _noted(self, name: str) -> bool:
        """Whether an item was here before; notes the process that has it now."""
        note = self._notes / f"{self._stage} {name}"
        before = note.read_text() if note.exists() else ""
        note.write_text(f"{before}{os.getpid()} ")
        return bool(before)


@ray.remote(num_cpus=0)
def _commit(notes: Path, block: int, results: list[Result], payloads: list[ray.ObjectRef]) -> int:
    """Writes down what it was given; fails as it is told."""
    if (notes / "no room").exists():
        raise OSError(28, "No space left on device")
    lost = notes / "lose a payload once"
    if lost.exists():
        lost.unlink()
        raise ObjectLostError("ab" * 28, None, "")
    if (notes / "write slowly").exists():
        time.sleep(0.3)
    names = [f"{r.name}:{r.error}" for r in results]
    return (notes / f"block {block}").write_text(f"{names} {ray.get(payloads)}")


class Chain:
    """The procedure, and what it saw."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.told: list[tuple[str, str]] = []
        self.blocks: list[tuple[int, int]] = []

    def name(self, item: Item) -> str:
        return item.name

    def identity(self, item: Item) -> str:
        return f"id of {item.name}"

    def decided(self, item: Item, result: Result) -> None:
        self.told.append((item.name, self.verdict(result).label))

    def committed(self, block: int, told: int) -> None:
        self.blocks.append((block, told))

    def verdict(self, result: Result) -> Verdict:
        if result.error is None:
            return Verdict("made", passed=True, worn=result.item.orders.get(result.history[-1]) == "wear")
        suspicion = None if result.error == "bad file" else "work (because)"
        return Verdict(f"failed: {result.error}", passed=False, suspicion=suspicion)

    def given_up(self, item: Item, result: Result | None, loss: Loss) -> Result:
        known = result or Result(item)
        what = "deaths" if loss.error == "WorkerDied" else loss.error
        return Result(item, f"{loss.times} {what} in {loss.stage}", known.history, known.part)

    def write(self, block: int, results: list[Result], payloads: list[ray.ObjectRef]) -> ray.ObjectRef:
        return _commit.remote(self.notes, block, results, payloads)

    def block(self, number: int) -> str:
        return (self.notes / f"block {number}").read_text()

    def processes(self, stage: str, item: str) -> list[str]:
        """The workers that had the item, in order."""
        return (self.notes / f"{stage} {item}").read_text().split()


def run(
    chain: Chain,
    *blocks: list[Item],
    stages: tuple[str, ...] = ("work",),
    workers: int | Mapping[str, int] = 1,
    held_mib: int = 100,
    most: int | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    source: Iterator[tuple[int, list[Item]]] | None = None,
    needs: Mapping[str, Mapping[str, float]] | None = None,
    sizes: Callable[[Mapping[str, float]], Sequence[int]] | None = None,
    wait_s: float = 120.0,
    **options: Any,
) -> Progress:
    """Have the chain done by ``workers`` in each stage, or by stage.

    ``needs`` by stage, half a CPU else; ``options`` of every stage.
    """

    def stage(name: str) -> Stage[Item, Result]:
        def create() -> Any:
            return ray.remote(Worker).options(num_cpus=asked["CPU"], num_gpus=asked["GPU"]).remote(name, chain.notes)

        asked = {"CPU": 0.5, "GPU": 0.0, **(needs or {}).get(name, {})}
        own: dict[str, Any] = {"needs": asked, **options}
        count = workers if isinstance(workers, int) else workers[name]

        if most is not None and name == stages[0]:
            refs = 1 + most
            return Stage(
                name,
                count,
                create,
                lambda a, item, *_: a.divide.options(num_returns=refs).remote(item, most),
                most,
                **own,
            )
        return Stage(name, count, create, lambda actor, *call: actor.do.options(num_returns=2).remote(*call), **own)

    progress = Progress(clips=sum(map(len, blocks)))
    Engine(
        chain,
        [stage(name) for name in stages],
        source or iter(list(enumerate(blocks))),
        item_mib=1,
        held_mib=held_mib,
        where="the folder",
        progress=progress,
        report=report,
        sizes=sizes,
        wait_s=wait_s,
    ).run()
    return progress
