"""The engine on clusters whose nodes come and go: true raylets on this machine, workers that do as they are told."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from faceloom.progress import Progress
from tests.faceloom.chain import Chain, Item, run

# Ray's own settings give a node more than half a minute to be heard of again.
_QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
_STORE = 100 * 1024 * 1024


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without work."""
    head = {"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False, "_system_config": _QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def _add(cluster: Cluster, cpus: float) -> object:
    node = cluster.add_node(num_cpus=cpus, object_store_memory=_STORE)
    cluster.wait_for_nodes()
    return node


def _meanwhile(work: Callable[[], Progress], happens: Callable[[], None]) -> Progress:
    """Nodes can be added from the main thread only, so the run has the other one."""
    done: list[Progress] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    happens()
    thread.join(120)
    assert done, "the run did not end"
    return done[0]


def _wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"never came: {path}")


def test_items_of_a_lost_node_are_nobodys_fault_however_often_it_happens(cluster: Cluster, tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    lost = [_add(cluster, 1)]

    def twice() -> None:
        for number in range(2):
            _wait_for(tmp_path / f"on node {number}")
            cluster.remove_node(lost[-1], allow_graceful=False)
            lost.append(_add(cluster, 1))

    progress = _meanwhile(lambda: run(chain, [Item("a", {"work": "on three nodes"}), Item("b")]), twice)

    assert chain.block(0) == "['a:None', 'b:None'] [['a'], ['b']]"
    assert progress.losses == {"work: NodeLost": 2}
    assert len(set(chain.processes("work", "a"))) == 3


def test_what_is_left_of_a_cluster_is_shared_anew_when_a_node_is_gone_for_good(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only worker of the second stage is lost, and those of the first have taken all that is left."""
    monkeypatch.setattr("faceloom.engine._STARVED_S", 2.0)
    chain = Chain(tmp_path)
    items = [Item(str(number), {"first": "late"}) for number in range(9)]

    def goes() -> None:
        _wait_for(tmp_path / "started second")
        _add(cluster, 2)
        _wait_for(tmp_path / "first 1")
        cluster.remove_node(gone, allow_graceful=False)

    gone = _add(cluster, 1)
    progress = _meanwhile(
        lambda: run(
            *(chain, items),
            stages=("first", "second"),
            workers={"first": 2, "second": 1},
            needs={"first": {"CPU": 1.0}, "second": {"CPU": 1.0}},
            wait_s=45,
        ),
        goes,
    )

    assert progress.outcomes == {"made": 9}


def test_a_pool_grows_with_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    _add(cluster, 1)
    most = [0]

    def look(progress: Progress) -> None:
        most[0] = max(most[0], progress.workers.get("work", 0))

    def comes() -> None:
        _wait_for(tmp_path / "work 0")
        _add(cluster, 2)

    items = [Item(str(number), {"work": "late"}) for number in range(30)]
    progress = _meanwhile(
        lambda: run(
            *(chain, items), needs={"work": {"CPU": 1.0}}, sizes=lambda has: [int(has.get("CPU", 0))], report=look
        ),
        comes,
    )

    assert (progress.outcomes, most) == ({"made": 30}, [3])
