"""The engine with workers that do as they are told, on a true Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from faceloom.engine import machine_is_at_fault
from faceloom.errors import UserError
from faceloom.progress import Progress
from tests.faceloom.chain import Chain, Item, run


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_items_go_through_the_stages_and_blocks_keep_their_order(chain: Chain) -> None:
    blocks = [Item("a", {"first": "late"}), Item("b")], [Item("c", {"second": "late"}), Item("d")]

    progress = run(chain, *blocks, stages=("first", "second"), workers=2)

    assert chain.block(0) == "['a:None', 'b:None'] [['a', 'a'], ['b', 'b']]"
    assert chain.block(1) == "['c:None', 'd:None'] [['c', 'c'], ['d', 'd']]"
    assert (progress.decided, progress.outcomes) == (4, {"made": 4})
    assert sorted(chain.told) == [(name, "made") for name in "abcd"], "each result is told of once"
    assert sorted(chain.blocks) == [(number, len(chain.block(number))) for number in (0, 1)]
    assert (progress.blocks_committed, progress.blocks_open) == (2, 0)


def test_what_does_not_pass_goes_no_further_and_has_no_payload(chain: Chain) -> None:
    run(chain, [Item("a"), Item("b", {"first": "bad file"}), Item("c")], stages=("first", "second"))
    assert chain.block(0) == "['a:None', 'b:bad file', 'c:None'] [['a', 'a'], ['c', 'c']]"
    assert not (chain.notes / "second b").exists()


def test_a_block_without_items_is_committed(chain: Chain) -> None:
    run(chain, [], [Item("a")], [])
    assert [chain.block(number) for number in range(3)] == ["[] []", "['a:None'] [['a']]", "[] []"]


def test_an_item_whose_worker_dies_is_tried_again_on_a_fresh_one(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "faceloom")

    progress = run(chain, [Item("a", {"work": "die once"}), Item("b")])

    assert chain.block(0) == "['a:None', 'b:None'] [['a'], ['b']]"
    first, second = chain.processes("work", "a")
    assert first != second
    assert (progress.losses, progress.retries) == ({"work: WorkerDied": 1}, {"work": 1})
    told: list[Any] = caplog.records
    assert [(line.clip_id, line.clip, line.stage, line.cause) for line in told] == [
        ("id of a", "a", "work", "WorkerDied")
    ] * 2
    assert [line.getMessage().partition(" (")[0] for line in told] == [
        "the work worker of a is lost",
        "a is tried again in work: WorkerDied",
    ]


def test_an_item_that_kills_twice_is_given_up_and_no_other_suffers(chain: Chain) -> None:
    items = [Item("a"), Item("b", {"second": "die"}), Item("c")]

    progress = run(chain, items, stages=("first", "second"))

    assert chain.block(0) == "['a:None', 'b:2 deaths in second', 'c:None'] [['a', 'a'], ['c', 'c']]"
    assert (progress.losses.total(), progress.retries.total()) == (2, 1)
    assert ("b", "failed: 2 deaths in second") in chain.told
    assert progress.outcomes == {"made": 2, "failed: 2 deaths in second": 1}


def test_deaths_in_one_stage_do_not_count_in_the_next(chain: Chain) -> None:
    run(chain, [Item("a", {"first": "die once", "second": "die once"})], stages=("first", "second"))
    assert chain.block(0) == "['a:None'] [['a', 'a']]"


def test_an_item_whose_worker_had_a_bad_machine_is_tried_on_another(chain: Chain) -> None:
    run(chain, [Item("a", {"work": "no memory once"})])
    assert chain.block(0) == "['a:None'] [['a']]"
    assert len(set(chain.processes("work", "a"))) == 2


def test_a_payload_lost_on_its_way_sends_the_item_back_to_the_start(chain: Chain) -> None:
    progress = run(chain, [Item("a", {"second": "lost once"})], stages=("first", "second"))

    assert chain.block(0) == "['a:None'] [['a', 'a']]"
    assert len(chain.processes("first", "a")) == 2
    assert len(set(chain.processes("second", "a"))) == 1, "the worker that could not get it is not to blame"
    assert (progress.losses, progress.retries) == ({}, {"first": 1})


def test_a_payload_lost_before_it_is_written_has_its_block_done_anew(chain: Chain) -> None:
    (chain.notes / "lose a payload once").touch()

    progress = run(chain, [Item("a"), Item("b", {"work": "bad file"})])

    assert chain.block(0) == "['a:None', 'b:bad file'] [['a']]"
    assert len(chain.processes("work", "a")) == 2
    assert (progress.decided, progress.outcomes) == (2, {"made": 1, "failed: bad file": 1})


def test_a_worker_is_replaced_after_a_failure_that_may_be_its_own(chain: Chain) -> None:
    run(chain, [Item("a"), Item("b", {"work": "bad file"}), Item("c", {"work": "fail"}), Item("d")])
    a, b, c, d = (chain.processes("work", name) for name in "abcd")
    assert a == b == c != d


def test_suspicious_failures_in_a_row_end_the_run(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceloom.pool._DOOMED", 3)
    orders = ["fail", "fail", "bad file", "fail", "fail", "", "fail", "fail", "fail", "fail"]
    items = [Item(str(number), {"work": order}) for number, order in enumerate(orders)]

    with pytest.raises(UserError, match=r"the last 3 all failed in work \(because\).*same command again"):
        run(chain, items)

    assert len(list(chain.notes.glob("work *"))) == 9, "what is the file's own fault begins the count anew"
    assert not list(chain.notes.glob("block *"))


def test_items_given_up_in_a_row_end_the_run_too(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceloom.pool._DOOMED", 3)
    items = [Item(str(number), {"work": "die"}) for number in range(5)]
    with pytest.raises(UserError, match=r"the last 3 all failed in work \(.*same command again"):
        run(chain, items)
    assert not list(chain.notes.glob("block *"))


def test_an_item_past_its_deadline_is_tried_again_and_then_given_up_and_no_other_suffers(chain: Chain) -> None:
    items = [Item("a", {"work": "hang"}), Item("b", {"work": "hang once"}), Item("c")]

    progress = run(chain, items, workers=2, deadline_s=1.0)

    assert chain.block(0) == "['a:2 DeadlineExceeded in work', 'b:None', 'c:None'] [['b'], ['c']]"
    assert progress.losses == {"work: DeadlineExceeded": 3}
    assert len(set(chain.processes("work", "a"))) == 2


def test_an_item_has_as_much_more_time_as_its_worker_says(chain: Chain) -> None:
    def allow(actor: Any, item: Item) -> ray.ObjectRef:
        return actor.allowance_s.remote(item)

    progress = run(chain, [Item("a", {"work": "late"}), Item("b", {"work": "hang"})], deadline_s=1.0, allow=allow)

    assert chain.block(0) == "['a:None', 'b:2 DeadlineExceeded in work'] [['a']]"
    assert progress.losses == {"work: DeadlineExceeded": 2}


def test_a_worker_is_replaced_after_so_many_items_or_when_it_has_grown(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "faceloom")
    items = [Item("a"), Item("b"), Item("c", {"work": "wear"}), Item("d")]

    progress = run(chain, items, recycle_after=2)

    a, b, c, d = (chain.processes("work", name) for name in "abcd")
    assert a == b != c != d
    assert (progress.recycled, progress.losses) == ({"work": 2}, {})
    assert [record.getMessage() for record in caplog.records] == [
        "a work worker is replaced: it has worked on 2 clips",
        "a work worker is replaced: it has grown too large",
    ]


def test_a_pool_that_no_node_has_room_for_ends_the_run_and_says_what_is_missing(chain: Chain) -> None:
    seen = []
    with pytest.raises(
        UserError, match=r"no work worker could start within 2 s: it needs 1 GPU, and the cluster has 0.*same command"
    ):
        run(
            *(chain, [Item("a")]),
            needs={"work": {"GPU": 1.0}},
            wait_s=2.0,
            report=lambda progress: seen.append(dict(progress.waiting)),
        )
    assert {"work": "it needs 1 GPU, and the cluster has 0"} in seen


def test_workers_that_cannot_start_end_the_run(chain: Chain) -> None:
    (chain.notes / "work cannot start").touch()
    with pytest.raises(UserError, match=r"work workers cannot start: .*no work model"):
        run(chain, [Item("a")])


def test_a_pool_does_without_workers_that_cannot_start_while_others_can(chain: Chain) -> None:
    for number in range(3):
        (chain.notes / f"work cannot start {number}").touch()
    seen: list[int] = []

    progress = run(chain, [Item(name) for name in "abcd"], workers=2, report=lambda p: seen.append(p.workers["work"]))

    assert (progress.outcomes, max(seen)) == ({"made": 4}, 1)


def test_a_block_that_cannot_be_written_ends_the_run(chain: Chain) -> None:
    (chain.notes / "no room").touch()
    with pytest.raises(UserError, match=r"cannot write block 0 to the folder: .*No space left.*same command again"):
        run(chain, [Item("a")])


def test_blocks_are_read_only_as_memory_allows(chain: Chain) -> None:
    """Two blocks of two fill the four MiB, as long as what was written last is not on the disk."""
    (chain.notes / "write slowly").touch()
    ahead = []

    def blocks() -> Iterator[tuple[int, list[Item]]]:
        for number in range(6):
            ahead.append(number - len(list(chain.notes.glob("block *"))))
            yield number, [Item(f"{number}a"), Item(f"{number}b")]

    run(chain, held_mib=4, source=blocks())

    assert len(list(chain.notes.glob("block *"))) == 6
    assert max(ahead) <= 2


def test_a_block_larger_than_the_memory_is_done_all_the_same(chain: Chain) -> None:
    assert run(chain, [Item("a"), Item("b"), Item("c")], [Item("d")], held_mib=1).decided == 4


def test_an_item_may_turn_out_to_be_several_parts_in_their_order(chain: Chain) -> None:
    items = [Item("a", {"second 0": "late"}, parts=3), Item("b"), Item("c", {"first 0": "bad file"})]

    progress = run(chain, items, [Item("d", parts=2)], stages=("first", "second"), workers=2, most=3)

    first = "['a0:None', 'a1:None', 'a2:None', 'b0:None', 'c0:bad file']"
    assert chain.block(0) == f"{first} [['a0', 'a0'], ['a1', 'a1'], ['a2', 'a2'], ['b0', 'b0']]"
    assert chain.block(1) == "['d0:None', 'd1:None'] [['d0', 'd0'], ['d1', 'd1']]"
    assert (progress.decided, progress.outcomes) == (4, {"made": 3, "failed: bad file": 1}), "an item counts once"


@pytest.mark.parametrize("part", [0, 2])
def test_a_part_that_kills_twice_is_given_up_and_its_siblings_do_not_suffer(chain: Chain, part: int) -> None:
    progress = run(
        chain, [Item("a", {f"second {part}": "die"}, parts=3), Item("b")], stages=("first", "second"), most=3
    )

    alive = [f"a{other}" for other in range(3) if other != part] + ["b0"]
    names = [f"a{n}:{'2 deaths in second' if n == part else None}" for n in range(3)] + ["b0:None"]
    assert chain.block(0) == f"{names} {[[name, name] for name in alive]}"
    assert len(chain.processes("first", "a1")) == 1, "what its siblings are made of is not made again"
    assert progress.losses.total() == 2
    assert progress.outcomes["made"] == (1 if part == 0 else 2), "an item counts as what its first part is"


def test_an_item_with_parts_that_kills_in_the_first_stage_is_given_up_as_one(chain: Chain) -> None:
    progress = run(chain, [Item("a", {"first 1": "die"}, parts=3)], stages=("first", "second"), most=3)
    assert chain.block(0) == "['a:2 deaths in first'] []"
    assert progress.decided == 1


def test_a_lost_payload_of_a_part_sends_the_whole_item_back_to_the_start(chain: Chain) -> None:
    """All parts but the first meet it, some of them when their item has been sent back already."""
    orders = {"second 1": "lost once", "second 2": "lost once", "second 3": "lost once"}

    progress = run(chain, [Item("a", orders, parts=4), Item("b")], stages=("first", "second"), workers=2, most=4)

    made = [f"a{part}" for part in range(4)] + ["b0"]
    assert chain.block(0) == f"{[f'{name}:None' for name in made]} {[[name, name] for name in made]}"
    assert (progress.decided, progress.outcomes) == (2, {"made": 2})


def test_memory_counts_every_part_that_an_item_may_have(chain: Chain) -> None:
    """Two items of up to three parts fill the six MiB; the one part that each comes to takes one."""
    seen: list[Progress] = []
    undecided = []

    def blocks() -> Iterator[tuple[int, list[Item]]]:
        for number in range(5):
            undecided.append(number - (seen[-1].decided if seen else 0))
            yield number, [Item(str(number), {"first 0": "late"})]

    run(chain, held_mib=6, most=3, stages=("first",), workers=3, source=blocks(), report=seen.append)

    assert len(list(chain.notes.glob("block *"))) == 5
    assert max(undecided) == 1


def test_a_report_tells_what_is_in_work_and_for_how_long(chain: Chain) -> None:
    seen = []
    run(chain, [Item("slow", {"work": "late"})], report=lambda p: seen.append((dict(p.in_work), p.oldest)))
    assert any(
        work == {"work": 1}
        and oldest is not None
        and (oldest.name, oldest.clip_id, oldest.stage) == ("slow", "id of slow", "work")
        for work, oldest in seen
    )
    assert seen[-1] == ({"work": 0}, None)


@pytest.mark.parametrize(
    ("error", "machine"),
    [
        (MemoryError(), True),
        (OSError(28, "No space left on device"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})(), True),
        (FileNotFoundError(2, "No such file"), False),
        (ValueError("no moov atom"), False),
    ],
)
def test_which_errors_are_the_machines(error: Exception, machine: bool) -> None:
    assert machine_is_at_fault(error) is machine
