import json
import re
import signal
import time
from pathlib import Path

import torch.distributed as dist

from tests.training.ranks import Ranks, run_ranks, start_ranks
from training.heartbeat import HUNG_EXIT_CODE, Heartbeat, read_beats
from training.parallel import finish, start
from training.parallel_config import ParallelConfig

TIMEOUT_S = 4.0


def lockstep_rank(folder: Path, hang: tuple[int, int] | None = None, steps: int = 1_000_000) -> None:
    """Steps that end in a collective; rank ``hang[0]`` goes no further than step ``hang[1]``."""
    world = start(ParallelConfig())
    with Heartbeat(folder, world.rank, TIMEOUT_S) as heartbeat:
        for step in range(steps):
            heartbeat.beat(step, "computing")
            if (world.rank, step) == hang:
                heartbeat.beat(step, "reading")
                time.sleep(600)
            time.sleep(0.01)
            heartbeat.beat(step, "reducing")
            dist.barrier()
    finish()


def wait_for_step(folder: Path, rank: int, step: int, ranks: Ranks) -> None:
    deadline = time.monotonic() + 60
    while not any(beat.rank == rank and beat.step >= step for beat in read_beats(folder)):
        assert time.monotonic() < deadline, ranks.outputs()
        time.sleep(0.05)


def test_a_rank_whose_process_is_stopped_is_named_by_the_others(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path / "ranks", 2, lockstep_rank, tmp_path / "beats")
    try:
        wait_for_step(tmp_path / "beats", 1, 2, ranks)
        stopped = ranks.processes[1].pid
        ranks.signal(1, signal.SIGSTOP)
        ranks.processes[0].join(TIMEOUT_S + 10)
        assert ranks.processes[0].exitcode == HUNG_EXIT_CODE
        assert re.search(rf"waits for rank 1 \(host .*, pid {stopped}\).*silent", ranks.output(0))
    finally:
        ranks.kill()


def test_a_rank_whose_main_loop_hangs_is_named(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path / "ranks", 3, lockstep_rank, tmp_path / "beats", (1, 3))
    codes = ranks.wait(60)
    # When one has ended the run, others may lose their connection to it before they have looked themselves.
    ended = [ranks.output(rank) for rank, code in enumerate(codes) if code == HUNG_EXIT_CODE]
    assert ended
    for output in ended:
        assert re.search(r"waits for rank 1 .* in step 3, reading", output)
        assert "where the ranks are: step 3, reading: 1 (1); step 3, reducing: 2 (0, 2)" in output


def test_the_rank_that_hangs_shows_where(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path / "ranks", 1, lockstep_rank, tmp_path / "beats", (0, 3))
    assert ranks.wait(60) == [HUNG_EXIT_CODE]
    assert "in lockstep_rank" in ranks.output(0)


def slow_but_alive_rank(folder: Path) -> None:
    world = start(ParallelConfig())
    with Heartbeat(folder, world.rank, 3.0, first_step_timeout_s=60) as heartbeat:
        heartbeat.begin(5, "compiling")
        time.sleep(5 if world.rank == 0 else 0)
        dist.barrier()
        time.sleep(0.3 * world.rank)  # rank 1 comes to its phase after rank 0 to the one behind it
        heartbeat.beat(6, "validating", allowance_s=60)
        time.sleep(5 if world.rank == 1 else 0)
        heartbeat.beat(6, "waiting")
        dist.barrier()
        for video in range(5):
            heartbeat.beat(6, f"video {video}")
            time.sleep(1)
        heartbeat.begin(6, "the next stage")
        time.sleep(5)
    finish()


def test_what_is_slow_but_allowed_or_goes_on_is_left_alone(tmp_path: Path) -> None:
    run_ranks(tmp_path / "ranks", 2, slow_but_alive_rank, tmp_path / "beats")


def test_a_rank_that_is_done_is_not_waited_for(tmp_path: Path) -> None:
    run_ranks(tmp_path / "ranks", 2, lockstep_rank, tmp_path / "beats", None, 3)
    assert [(beat.rank, beat.phase, beat.step) for beat in read_beats(tmp_path / "beats")] == [
        (0, "done", 2),
        (1, "done", 2),
    ]


def test_what_an_earlier_run_left_is_not_taken_for_a_rank_of_this_one(tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    run_ranks(tmp_path / "ranks", 1, lockstep_rank, beats, None, 1)
    (beats / "rank-00007.json").write_bytes((beats / "rank-00000.json").read_bytes())
    run_ranks(tmp_path / "ranks", 1, lockstep_rank, beats, None, 1)
    assert [path.name for path in beats.iterdir()] == ["rank-00000.json"]
    assert json.loads((beats / "rank-00000.json").read_text())["rank"] == 0
