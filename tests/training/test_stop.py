import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from tests.training.ranks import run_ranks
from training.parallel import finish, start
from training.parallel_config import ParallelConfig
from training.stop import Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_sets_the_flag(number: signal.Signals) -> None:
    with Stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.tensor(torch.device("cpu")) == 1


def test_a_second_interrupt_interrupts() -> None:
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stop():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_it_works_in_a_thread_which_gets_no_signals() -> None:
    flags = []

    def work() -> None:
        with Stop() as stop:
            flags.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]


def signalled_rank() -> list[bool]:
    world = start(ParallelConfig())
    agreed = []
    with Stop() as stop:
        for step in range(4):
            if (world.rank, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            agreed.append(stop.agreed(world.device))
    finish()
    return agreed


def test_all_ranks_agree_at_the_same_step_when_one_gets_the_signal(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, 3, signalled_rank) == [[False, False, True, True]] * 3
