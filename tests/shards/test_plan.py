"""The plan by its promises: every sample once an epoch, one order for ever, whatever the ranks and wherever it stopped."""

import hashlib
import json
import pickle
import time
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceloom.errors import UserError
from shards.plan import PERIOD, WINDOW_SHARDS, DatasetShape, Draw, Plan, rank_positions

shapes = st.builds(
    DatasetShape,
    st.text("0123456789abcdef", min_size=1, max_size=8),
    st.lists(st.integers(0, 7), min_size=1, max_size=60).filter(any).map(tuple),
    st.floats(0.1, 10),
)
seeds = st.integers(-(2**40), 2**70)


def draws(plan: Plan, start: int, stop: int) -> list[Draw]:
    return [plan.at(position) for position in range(start, stop)]


def order(plan: Plan, count: int) -> list[int]:
    return [draw.sample for draw in draws(plan, 0, count)]


def read_by_ranks(plan: Plan, consumed: int, global_batch: int, world: int, batches: int) -> list[list[Draw]]:
    """For each batch, what the ranks of a world read, rank after rank."""
    ranks = [islice(rank_positions(consumed, global_batch, rank, world), batches) for rank in range(world)]
    return [[plan.at(position) for run in batch for position in run] for batch in zip(*ranks, strict=True)]


@settings(max_examples=100, deadline=None)
@given(shape=shapes, seed=seeds, first=st.integers(0, 10**6))
def test_every_epoch_holds_every_sample_exactly_once(shape: DatasetShape, seed: int, first: int) -> None:
    total = sum(shape.shard_sizes)
    plan = Plan([shape], seed)
    for epoch in (first, first + 1):
        found = draws(plan, epoch * total, (epoch + 1) * total)
        assert sorted(draw.sample for draw in found) == list(range(total))
        assert {draw.epoch for draw in found} == {epoch}


@settings(max_examples=100, deadline=None)
@given(
    mix=st.lists(shapes, min_size=1, max_size=3),
    seed=seeds,
    worlds=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    batches=st.integers(0, 4),
    per_rank=st.integers(1, 3),
)
def test_ranks_that_come_and_go_read_the_uninterrupted_sequence(
    mix: list[DatasetShape], seed: int, worlds: list[int], batches: int, per_rank: int
) -> None:
    consumed = 0
    read: list[Draw] = []
    for world in worlds:
        # A killed run and its successor share nothing but (digest, seed, consumed); the batch size may change too.
        plan = Plan(mix, seed)
        for batch in read_by_ranks(plan, consumed, world * per_rank, world, batches):
            assert len(batch) == world * per_rank
            read += batch
        consumed = len(read)
    assert read == draws(Plan(mix, seed), 0, consumed)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=seeds, a=st.integers(1, 5), b=st.integers(1, 5), data=st.data())
def test_epochs_interrupted_anywhere_have_no_duplicate_and_none_missing(
    shape: DatasetShape, seed: int, a: int, b: int, data: st.DataObject
) -> None:
    total, batch = sum(shape.shard_sizes), a * b
    batches = -(-3 * total // batch)
    kill = data.draw(st.integers(0, batches))
    before = read_by_ranks(Plan([shape], seed), 0, batch, a, kill)
    after = read_by_ranks(Plan([shape], seed), kill * batch, batch, b, batches - kill)
    seen = Counter((draw.epoch, draw.sample) for batch in before + after for draw in batch)
    assert all(seen[epoch, sample] == 1 for epoch in range(3) for sample in range(total))
    assert set(seen.values()) == {1}


@settings(max_examples=50, deadline=None)
@given(shape=shapes, seed=seeds, positions=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_position_is_the_same_draw_however_one_gets_there(
    shape: DatasetShape, seed: int, positions: list[int]
) -> None:
    plan = Plan([shape, DatasetShape("other", (3, 4))], seed)
    found = [plan.at(position) for position in positions]
    assert found == [Plan(plan.datasets, seed).at(position) for position in positions]


def test_each_rank_reads_an_equal_share_of_every_batch() -> None:
    ranks = [list(islice(rank_positions(5, 12, rank, 3), 2)) for rank in range(3)]
    assert ranks == [[range(5, 9), range(17, 21)], [range(9, 13), range(21, 25)], [range(13, 17), range(25, 29)]]


def test_a_batch_goes_on_into_the_next_epoch() -> None:
    plan = Plan([DatasetShape("d", (3, 4))], 0)
    assert [draw.epoch for draw in draws(plan, 0, 16)] == [0] * 7 + [1] * 7 + [2] * 2


@pytest.mark.parametrize(
    ("batch", "world", "remedy"), [(512, 3, "510 or 513"), (2, 4, "make it 4"), (0, 2, "make it 2")]
)
def test_a_batch_that_ranks_cannot_share_is_refused_with_one_that_they_can(batch: int, world: int, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        rank_positions(0, batch, 0, world)


BASE = DatasetShape("d" * 64, (20,) * 40)


@pytest.mark.parametrize(
    "other",
    [Plan([BASE], 1), Plan([DatasetShape("e" * 64, BASE.shard_sizes)], 0)],
    ids=["seed", "dataset digest"],
)
def test_another_seed_or_dataset_is_another_order(other: Plan) -> None:
    assert agreement(order(Plan([BASE], 0), 800), order(other, 800)) < 0.02


def test_another_epoch_is_another_order() -> None:
    both = order(Plan([BASE], 0), 1600)
    assert agreement(both[:800], both[800:]) < 0.02


def test_another_epoch_has_other_windows() -> None:
    shards = np.array(order(Plan([BASE], 0), 1600)) // 20
    assert set(shards[:320]) != set(shards[800:1120])


def agreement(one: list[int], other: list[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def test_only_a_window_of_shards_is_read_at_a_time() -> None:
    shards = np.array(order(Plan([BASE], 0), 800)) // 20
    groups = [set(shards[start : start + WINDOW_SHARDS * 20]) for start in range(0, 800, WINDOW_SHARDS * 20)]
    assert [len(group) for group in groups] == [16, 16, 8]
    assert not groups[0] & groups[1]
    assert max(groups[0]) - min(groups[0]) > 16  # and they are not neighbours in storage


def test_within_a_window_the_samples_of_its_shards_are_mixed() -> None:
    first = np.array(order(Plan([BASE], 0), WINDOW_SHARDS * 20)) // 20
    assert 0.02 < np.mean(first[:-1] == first[1:]) < 0.12  # 1/16 by chance


@settings(max_examples=20, deadline=None)
@given(mix=st.lists(shapes, min_size=1, max_size=4), seed=seeds, period=st.integers(0, 1000))
def test_every_period_honours_the_quotas(mix: list[DatasetShape], seed: int, period: int) -> None:
    plan = Plan(mix, seed)
    counts = Counter(draw.dataset for draw in draws(plan, period * PERIOD, (period + 1) * PERIOD))
    total = sum(shape.weight for shape in mix)
    for number, shape in enumerate(mix):
        assert abs(counts[number] - PERIOD * shape.weight / total) < 1


@settings(max_examples=10, deadline=None)
@given(mix=st.lists(shapes, min_size=2, max_size=3), seed=seeds, periods=st.integers(1, 3))
def test_in_a_mix_each_dataset_still_runs_whole_epochs(mix: list[DatasetShape], seed: int, periods: int) -> None:
    found = draws(Plan(mix, seed), 0, periods * PERIOD)
    for number, shape in enumerate(mix):
        total = sum(shape.shard_sizes)
        alone = [(draw.epoch, draw.sample) for draw in found if draw.dataset == number]
        assert [epoch for epoch, _ in alone] == [place // total for place in range(len(alone))]
        whole = len(alone) // total * total
        assert set(Counter(alone[:whole]).values()) <= {1}


def test_the_slots_of_a_mix_are_dealt_anew_in_every_period() -> None:
    plan = Plan([DatasetShape("a", (5,)), DatasetShape("b", (5,))], 0)
    dealt = [draw.dataset for draw in draws(plan, 0, 2 * PERIOD)]
    assert dealt[:PERIOD] != dealt[PERIOD:]
    assert 0.4 < sum(a != b for a, b in pairwise(dealt)) / len(dealt) < 0.6


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1e-5])
def test_a_weight_that_gives_no_slot_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match="dataset 1"):
        Plan([DatasetShape("a", (5,)), DatasetShape("b", (5,), weight)], 0)


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_a_dataset_without_samples_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="no samples"):
        Plan([DatasetShape("a", sizes)], 0)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=seeds, position=st.integers(0, 10**6))
def test_replacements_are_all_the_other_samples_each_once(shape: DatasetShape, seed: int, position: int) -> None:
    plan = Plan([DatasetShape("first", (2,)), shape], seed)
    damaged = plan.at(position)
    total = sum(plan.datasets[damaged.dataset].shard_sizes)
    found = [plan.replacement(position, attempt) for attempt in range(1, total)]
    assert sorted([damaged.sample, *(draw.sample for draw in found)]) == list(range(total))
    assert {(draw.dataset, draw.epoch) for draw in found} <= {(damaged.dataset, damaged.epoch)}
    with pytest.raises(LookupError):
        plan.replacement(position, total)


def test_replacements_come_from_all_over_the_dataset() -> None:
    plan = Plan([BASE], 0)
    found = np.array([plan.replacement(position, 1).sample for position in range(2000)])
    assert len(np.unique(found)) > 700  # of 800; 734 expected
    assert abs(found.mean() - 399.5) < 20


def test_replacements_depend_on_the_seed() -> None:
    found = [[Plan([BASE], seed).replacement(position, 1).sample for position in range(50)] for seed in (0, 1)]
    assert agreement(*found) < 0.1


def test_weights_that_mean_the_same_order_have_the_same_digest() -> None:
    other = DatasetShape("x", (3,))
    mixes = [[replace(BASE, weight=a), replace(other, weight=a)] for a in (1, 1.0, 2.0)]
    assert len({Plan(mix, 0).digest for mix in mixes}) == 1
    assert Plan([BASE], 0).digest == Plan([replace(BASE, weight=5)], 0).digest


def test_the_digest_covers_everything_but_the_seed() -> None:
    digests = {
        Plan([shape], 0).digest
        for shape in (BASE, DatasetShape("x", BASE.shard_sizes), DatasetShape(BASE.digest, (40,) * 20))
    }
    assert len(digests) == 3
    assert Plan([BASE], 0).digest == Plan([BASE], 7).digest
    mixes = [Plan([BASE, DatasetShape("x", (3,), weight)], 0).digest for weight in (1.0, 2.0)]
    assert len({*mixes, *digests}) == 5


def test_a_pickled_plan_goes_on_with_the_same_order() -> None:
    plan = Plan([BASE, DatasetShape("x", (3, 0, 9), 0.3)], 5)
    again = pickle.loads(pickle.dumps(plan))  # noqa: S301
    assert draws(again, 0, 1000) == draws(plan, 0, 1000)
    assert again.digest == plan.digest


@pytest.mark.parametrize(
    ("plan", "start", "golden"),
    [
        (Plan([DatasetShape("a" * 64, (17, 0, 256, 3) * 20)], 0), 0, "674d88d42454d8da6905d6c93eb74927"),
        (Plan([DatasetShape("a" * 64, (17, 0, 256, 3) * 20)], 2**65 + 1), 10**12, "290d9ae748c36ad60ea096256d00ce91"),
        (
            Plan([DatasetShape("a", (7,) * 50, 3.0), DatasetShape("b", (11,) * 9, 0.7)], 1),
            5000,
            "f70c9f39fea8f2879f7c9540d9b1bc47",
        ),
    ],
    ids=["from the start", "far on", "mixed"],
)
def test_the_order_is_the_one_it_always_was(plan: Plan, start: int, golden: str) -> None:
    """A checkpoint resumes in this order. A change of it needs another ``_VERSION``, and new values here."""
    found = json.dumps([draws(plan, start, start + 9000), [plan.replacement(start, n) for n in range(1, 40)]])
    assert hashlib.sha256(found.encode()).hexdigest()[:32] == golden


def test_the_first_access_of_an_epoch_is_quick_for_a_hundred_thousand_shards() -> None:
    plan = Plan([DatasetShape("a", (256,) * 100_000)], 0)
    plan.at(0)
    costs = []
    for epoch in (1, 2, 3):
        start = time.perf_counter()
        plan.at(epoch * 25_600_000)
        costs.append(time.perf_counter() - start)
    assert min(costs) < 0.05
