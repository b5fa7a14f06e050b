import gc
import itertools
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from faceloom.errors import UserError
from shards.loader import Loader, resume
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from tests.shards.conftest import build_dataset, sample_values
from tests.shards.layered import add_latents, latent_values

MOMENTS = "latents/reference_moments.safetensors"
FIELDS = ["pose.npy", MOMENTS, "meta.json", "reference.jpg"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 samples in 7 shards, and a shard without any."""
    return add_latents(build_dataset(tmp_path_factory.mktemp("loaded"), clips=24))


@pytest.fixture(scope="module")
def samples(root: Path) -> ShardedDataset:
    return ShardedDataset(root, FIELDS)


def plan_of(*datasets: ShardedDataset, seed: int = 3) -> Plan:
    return Plan([DatasetShape(dataset.digest, dataset.shard_sizes) for dataset in datasets], seed)


def keys_at(samples: ShardedDataset, positions: range, seed: int = 3) -> list[str]:
    return [samples.key(plan_of(samples, seed=seed).at(position).sample) for position in positions]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards-loader")]


def test_batches_hold_the_samples_of_the_plan_in_its_order(samples: ShardedDataset) -> None:
    with Loader([samples], plan_of(samples), 4) as loader:
        for number, batch in enumerate(itertools.islice(loader, 10)):  # 40 positions: three epochs
            positions = range(4 * number, 4 * number + 4)
            assert batch["__position__"].tolist() == list(positions)
            assert batch["__key__"] == keys_at(samples, positions)
            assert list(batch) == ["__key__", "__position__", *FIELDS]
            for row, key in enumerate(batch["__key__"]):
                values = sample_values(key)
                np.testing.assert_array_equal(batch["pose.npy"][row].numpy(), values["pose.npy"])
                latents = latent_values(key, "latents")["reference_moments.safetensors"]
                np.testing.assert_array_equal(batch[MOMENTS][row].view(torch.uint16).numpy(), latents)
                assert batch["meta.json"][row] == values["meta.json"]
                assert batch["reference.jpg"][row] == values["reference.jpg"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("prefetch_mib", [0, 64])
def test_threads_and_prefetch_do_not_change_what_is_read(
    samples: ShardedDataset, threads: int, prefetch_mib: int
) -> None:
    with Loader([samples], plan_of(samples), 3, threads=threads, prefetch_mib=prefetch_mib) as loader:
        keys = [key for batch in itertools.islice(loader, 6) for key in batch["__key__"]]
    assert keys == keys_at(samples, range(18))


def test_the_ranks_share_a_batch(samples: ShardedDataset) -> None:
    shares = []
    for rank in range(3):
        with Loader([samples], plan_of(samples), 6, rank=rank, world=3, consumed=6) as loader:
            shares.append(next(loader))
    assert [batch["pose.npy"].shape[0] for batch in shares] == [2, 2, 2]
    assert [key for batch in shares for key in batch["__key__"]] == keys_at(samples, range(6, 12))


def test_the_state_counts_what_was_given_out_by_all_ranks_and_not_what_was_read_ahead(samples: ShardedDataset) -> None:
    plan = plan_of(samples)
    with Loader([samples], plan, 6, rank=1, world=2, consumed=12) as loader:
        assert loader.state() == {"digest": plan.digest, "seed": 3, "consumed": 12}
        next(loader)
        next(loader)
        assert loader.state() == {"digest": plan.digest, "seed": 3, "consumed": 24}
        assert (loader.served, loader.replaced) == (6, 0)


def test_a_run_goes_on_where_its_state_says(samples: ShardedDataset) -> None:
    plan = plan_of(samples)
    with Loader([samples], plan, 4) as loader:
        before = [next(loader)["__key__"] for _ in range(3)]
        state = loader.state()
    with Loader([samples], plan_of(samples), 2, consumed=resume(state, plan_of(samples))) as loader:
        after = [next(loader)["__key__"] for _ in range(4)]
    assert list(itertools.chain(*before, *after)) == keys_at(samples, range(20))


def test_a_state_of_another_run_is_refused(samples: ShardedDataset, root: Path) -> None:
    state = {"digest": plan_of(samples).digest, "seed": 3, "consumed": 4}
    with pytest.raises(UserError, match="the data plan's seed was 3 and is 4"):
        resume(state, plan_of(samples, seed=4))
    other = plan_of(ShardedDataset(root, ["pose.npy"]))
    with pytest.raises(UserError, match=f"digest was {state['digest']} and is {other.digest}"):
        resume(state, other)


def test_prefetch_is_bounded_in_bytes(samples: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = ShardedDataset.key
    monkeypatch.setattr(ShardedDataset, "key", lambda self, i: read.append(i) or original(self, i))
    monkeypatch.setattr(samples, "sample_nbytes", 2**20)
    with Loader([samples], plan_of(samples), 2, prefetch_mib=7) as loader:
        next(loader)
        deadline = time.monotonic() + 30
        while len(read) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(read) == 2 + 3 * 2  # the batch given out, and three of 2 MiB ahead


def test_a_batch_keeps_its_numbers_for_as_long_as_anything_refers_to_it(samples: ShardedDataset) -> None:
    with Loader([samples], plan_of(samples), 2, prefetch_mib=1) as loader:
        batch = next(loader)
        row, keys = batch["pose.npy"][1], batch["__key__"]
        del batch
        for _ in range(40):
            next(loader)
        np.testing.assert_array_equal(row.numpy(), sample_values(keys[1])["pose.npy"])


def test_the_memory_of_a_batch_is_used_again(samples: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda size, *rest, **named: sizes.append(size) or empty(size, *rest, **named))
    with Loader([samples], plan_of(samples), 2, prefetch_mib=0) as loader:
        nbytes = next(loader)[MOMENTS].nbytes
        for _ in range(50):
            next(loader)
    assert sizes.count(nbytes) <= 4


def test_closing_ends_all_threads(samples: ShardedDataset) -> None:
    loader = Loader([samples], plan_of(samples), 2, threads=3)
    next(loader)
    assert loader_threads()
    loader.close()
    loader.close()
    assert not loader_threads()
    with pytest.raises(RuntimeError, match="closed"):
        next(loader)


def test_a_forgotten_loader_leaves_no_threads(samples: ShardedDataset) -> None:
    loader = Loader([samples], plan_of(samples), 2)
    next(loader)
    del loader
    gc.collect()
    deadline = time.monotonic() + 30
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not loader_threads()


def test_an_error_comes_in_its_turn_and_ends_the_loader(
    samples: ShardedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = plan_of(samples).at(5).sample
    original = ShardedDataset.key

    def key(self: ShardedDataset, i: int) -> str:
        if i == bad:
            raise ZeroDivisionError("a bug")
        return original(self, i)

    expected = keys_at(samples, range(4))
    monkeypatch.setattr(ShardedDataset, "key", key)
    loader = Loader([samples], plan_of(samples), 2)
    assert next(loader)["__key__"] + next(loader)["__key__"] == expected
    with pytest.raises(ZeroDivisionError):
        next(loader)
    assert loader.state()["consumed"] == 4
    assert not loader_threads()


def test_datasets_are_mixed_as_the_plan_says(samples: ShardedDataset, tmp_path: Path) -> None:
    other = ShardedDataset(add_latents(build_dataset(tmp_path / "other", clips=12), fingerprint="b" * 64), FIELDS)
    plan = plan_of(samples, other)
    with Loader([samples, other], plan, 8) as loader:
        keys = next(loader)["__key__"] + next(loader)["__key__"]
    draws = [plan.at(position) for position in range(16)]
    assert {draw.dataset for draw in draws} == {0, 1}
    assert keys == [[samples, other][draw.dataset].key(draw.sample) for draw in draws]


def test_datasets_of_other_shapes_are_refused(
    samples: ShardedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.shards.layered.CHANNELS", 5)
    other = ShardedDataset(add_latents(build_dataset(tmp_path / "other")), FIELDS)
    with pytest.raises(
        UserError, match=rf"'{MOMENTS}' is torch.bfloat16 \[2, 1, 60, 90\] in .* and .* \[5, 1, 60, 90\]"
    ):
        Loader([samples, other], plan_of(samples, other), 4)


def test_datasets_read_with_other_fields_are_refused(samples: ShardedDataset, root: Path) -> None:
    other = ShardedDataset(root, [MOMENTS])
    with pytest.raises(UserError, match="different fields"):
        Loader([samples, other], plan_of(samples, other), 4)


def test_a_plan_of_other_datasets_is_refused(samples: ShardedDataset) -> None:
    with pytest.raises(UserError, match="the plan was made for the datasets"):
        Loader([samples], Plan([DatasetShape("0" * 64, samples.shard_sizes)], 0), 4)


def test_a_batch_that_cannot_be_shared_equally_is_refused(samples: ShardedDataset) -> None:
    with pytest.raises(UserError, match="cannot be shared equally"):
        Loader([samples], plan_of(samples), 4, world=3)


SECOND_PROCESS = {
    "disjoint": {"rank": 1},
    "same rank": {"rank": 0},
    "other seed": {"rank": 1, "seed": 4},
    "other position": {"rank": 1, "consumed": 4},
}


def first_batches(root: Path, process: int, port: int, results: object) -> None:
    """One of two processes: what comes of a loader in each of the cases above."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=process, world_size=2)
    samples = ShardedDataset(root, ["pose.npy"])
    for case, second in SECOND_PROCESS.items():
        arguments = {"seed": 3, "rank": 0} | (second if process else {})
        plan = plan_of(samples, seed=arguments.pop("seed"))
        try:
            with Loader([samples], plan, 4, world=2, **arguments) as loader:
                results.put((case, process, next(loader)["__key__"]))
        except UserError as error:
            results.put((case, process, str(error)))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(root: Path) -> dict[str, list[object]]:
    """What each of two processes got, by case."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.SimpleQueue()
    port = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True).port
    processes = [spawn.Process(target=first_batches, args=(root, process, port, results)) for process in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    received = sorted(results.get() for _ in range(2 * len(SECOND_PROCESS)))
    return {name: [result for case, _, result in received if case == name] for name in SECOND_PROCESS}


def test_two_processes_read_disjoint_batches(distributed: dict[str, list[object]], root: Path) -> None:
    samples = ShardedDataset(root, ["pose.npy"])
    assert distributed["disjoint"] == [keys_at(samples, range(2)), keys_at(samples, range(2, 4))]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("same rank", "2 processes read as the ranks [0, 0], which is not all of 2"),
        ("other seed", "the ranks do not read by the same plan; their datasets and seed are: "),
        ("other position", "their position, global batch and world size are: [0, 4, 2]; [4, 4, 2]"),
    ],
)
def test_processes_that_would_not_are_all_stopped(
    distributed: dict[str, list[object]], case: str, message: str
) -> None:
    assert [message in str(result) for result in distributed[case]] == [True, True]


def test_batches_that_overlap_are_refused(samples: ShardedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(everyone: list[object], mine: dict[str, object]) -> None:
        everyone[:] = [mine, mine | {"rank": 1}]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(UserError, match="first batches are not disjoint; read more than once"):
        Loader([samples], plan_of(samples), 4, world=2)
