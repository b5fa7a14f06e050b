import importlib.machinery
import io
import json
import math
import resource
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from faceloom.errors import UserError
from training.metrics import Interval, Metrics, peak_memory_gib
from training.metrics_config import MetricsConfig

INTERVAL = Interval(
    steps=10,
    loss=0.25,
    loss_max=0.5,
    grad_norm=1.5,
    lr=1e-5,
    samples=5120,
    seconds=1000.0,
    data_wait_s=4.0,
    memory_gib=61.5,
    memory_reserved_gib=70.0,
)


def metrics(out: Path, *, rank: int = 0, resumed_at: int = 0, console: Console | None = None, **config: Any) -> Metrics:
    return Metrics(
        MetricsConfig(**config),
        out,
        rank=rank,
        world=32,
        peak=312e12,
        resumed_at=resumed_at,
        console=console or Console(file=io.StringIO()),
    )


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def scalars(out: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_speed_and_mfu_follow_from_samples_seconds_and_operations(tmp_path: Path) -> None:
    with metrics(tmp_path) as run:
        run.begin_stage("motion", before=0, steps=2000, flops=10**15, tokens=18_279)
        run.log(10, INTERVAL)
    (line,) = lines(tmp_path)
    assert (line["step"], line["stage"], line["loss"], line["loss_max"]) == (10, "motion", 0.25, 0.5)
    assert line["speed/seconds_per_step"] == 100
    assert line["speed/samples_per_s"] == 5.12
    assert line["speed/tokens_per_s"] == pytest.approx(5.12 * 18_279)
    assert line["speed/tflops_per_s_per_rank"] == pytest.approx(160)
    assert line["speed/mfu"] == pytest.approx(160 / 312)
    assert line["speed/data_wait"] == 0.004


def test_no_mfu_is_claimed_for_an_unknown_device(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Metrics(MetricsConfig(), tmp_path, rank=0, world=1, peak=None, console=Console(file=screen)) as run:
        run.begin_stage("motion", 0, 10, 10**15, 1)
        run.log(10, INTERVAL)
    assert "speed/mfu" not in lines(tmp_path)[0]
    assert "MFU" not in screen.getvalue()


def test_tensorboard_has_the_same_numbers_under_the_same_names(tmp_path: Path) -> None:
    with metrics(tmp_path) as run:
        run.begin_stage("motion", 0, 2000, 10**15, 18_279)
        run.log_validation(0, {"held_out": 1.0, "held_out/t0100": 0.5})
        run.log(10, INTERVAL, {"weight/mean": 1.01})
    line = lines(tmp_path)[1]
    for name in sorted(set(line) - {"step", "stage"}):
        assert scalars(tmp_path, name)[10] == pytest.approx(line[name], rel=1e-6)
    assert scalars(tmp_path, "held_out/t0100") == {0: 0.5}


def test_a_resumed_run_takes_later_steps_again(tmp_path: Path) -> None:
    with metrics(tmp_path) as run:
        run.begin_stage("motion", 0, 2000, 10**15, 18_279)
        for step in (10, 20, 30):
            run.log(step, INTERVAL)
    screen = io.StringIO()
    with metrics(tmp_path, resumed_at=20, console=Console(file=screen)) as run:
        run.begin_stage("motion", 0, 2000, 10**15, 18_279)
        run.log(30, replace(INTERVAL, loss=0.125))
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(10, 0.25), (20, 0.25), (30, 0.125)]
    assert scalars(tmp_path, "loss") == {10: 0.25, 20: 0.25, 30: 0.125}
    assert "1 lines after step 20 dropped" in screen.getvalue().replace("\n", "")


@pytest.mark.parametrize("torn", ['{"step": 20, "sta', '{"step": 20}', "\0\0\0"])
def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path, torn: str) -> None:
    whole = '{"step": 10, "stage": "motion"}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + torn)
    with metrics(tmp_path, resumed_at=20) as run:
        run.begin_stage("motion", 0, 2000, 10**15, 18_279)
        run.log(20, INTERVAL)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_a_loss_that_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    screen = io.StringIO()
    with metrics(tmp_path, console=Console(file=screen)) as run:
        run.begin_stage("motion", 0, 10, 10**15, 1)
        run.log(10, replace(INTERVAL, loss=math.nan, grad_norm=math.inf))
    (line,) = lines(tmp_path)
    assert line["loss"] is None
    assert line["grad_norm"] is None
    assert "loss nan" in screen.getvalue()


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with metrics(tmp_path, rank=1) as run:
        run.begin_stage("motion", 0, 10, 10**15, 1)
        run.log(10, INTERVAL)
        run.log_validation(10, {"held_out": 1.0})
        run.say("hello")
    assert not list(tmp_path.iterdir())


def test_off_a_terminal_lines_come_every_ten_seconds_and_for_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    screen = io.StringIO()
    with metrics(tmp_path, console=Console(file=screen, width=40)) as run:
        run.begin_stage("identity", before=2000, steps=5, flops=10**15, tokens=1)
        for step in range(2001, 2006):
            run.log(step, INTERVAL)
            now += 4
    shown = screen.getvalue().splitlines()
    assert [line.split(";")[0] for line in shown] == [f"identity: {n} of 5 steps" for n in (1, 4, 5)]
    assert shown[0].endswith(
        "; loss 0.2500 (max 0.5000), grad norm 1.5, 5.12 samples/s, MFU 51.3%, data wait 0.4%, 61.5 GiB"
    )


def test_a_terminal_shows_a_bar_a_stage(tmp_path: Path) -> None:
    screen = io.StringIO()
    with metrics(tmp_path, console=Console(file=screen, force_terminal=True, width=200)) as run:
        run.begin_stage("motion", 0, 10, 10**15, 1)
        run.log(10, INTERVAL)
        run.say("saved step 10")
        run.begin_stage("identity", 10, 20, 10**15, 1)
        run.log(15, INTERVAL)
    for text in ("motion", "10/10", "identity", "5/20", "saved step 10"):
        assert text in screen.getvalue()


def test_wandb_is_asked_for_by_name_and_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"metrics\.wandb is 'faces', but the package wandb is not installed; pip install"
    ):
        metrics(tmp_path, rank=3, wandb="faces")


def test_wandb_gets_the_numbers_and_a_resumed_run_goes_on_with_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    wandb = types.ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    page = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", {"step": step, **values})),
        finish=lambda: calls.append(("finish", {})),
    )

    def init(**arguments: Any) -> Any:
        calls.append(("init", arguments))
        return page

    wandb.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for resumed_at in (0, 10):
        with metrics(tmp_path, resumed_at=resumed_at, wandb="faces") as run:
            run.begin_stage("motion", 0, 2000, 10**15, 1)
            run.log(resumed_at + 10, INTERVAL)
    assert [name for name, _ in calls] == ["init", "log", "finish"] * 2
    first, second = calls[0][1], calls[3][1]
    assert first["project"] == "faces"
    assert first["id"] == second["id"]
    assert calls[1][1]["step"] == 10
    assert calls[1][1]["speed/samples_per_s"] == 5.12


def test_memory_on_the_cpu_is_the_process_own() -> None:
    held = torch.ones(40 * 2**20, dtype=torch.uint8)
    in_use, reserved = peak_memory_gib(torch.device("cpu"))
    assert in_use == reserved
    assert held.nbytes / 2**30 < in_use < 64


def test_a_full_disk_is_said_once_and_what_it_did_not_take_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # where TensorBoard's writer reports, too
    text = io.StringIO()
    with metrics(tmp_path, console=Console(file=text, width=300)) as run:
        run.begin_stage("motion", before=0, steps=50, flops=1, tokens=1)
        run.log(10, INTERVAL)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            run.log(20, INTERVAL)
            run.log(30, INTERVAL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        run.log(40, INTERVAL)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30, 40]
    assert text.getvalue().count("numbers cannot be written: [Errno 27] File too large; training goes on") == 1
