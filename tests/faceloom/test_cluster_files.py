"""``ray_cluster.yaml`` and ``configs/cluster.yaml``: what Ray's launcher and its autoscaler make of them."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config

from curation.config import CurationConfig, PoolConfig
from curation.preflight import large_block, pool_sizes
from faceloom import config

ROOT = Path(__file__).parents[2]
LAUNCHED = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text("utf-8"))
RUN = config.load(CurationConfig, "cluster").run


def nodes_for(
    pools: Mapping[str, PoolConfig], launched: Mapping[str, Any] = LAUNCHED
) -> tuple[dict[str, int], list[Any]]:
    """Nodes by type that Ray's autoscaler would add for all workers of ``pools``, and the demands it could not meet."""
    demands = [
        {kind: amount for kind, amount in pool.needs.items() if amount}
        for pool in pools.values()
        for _ in range(pool.workers)
    ]
    prepared = prepare_config(copy.deepcopy(dict(launched)))
    head = prepared["head_node_type"]

    def score(*arguments: Any) -> Any:
        return _default_utilization_scorer(*arguments, node_availability_summary=None)

    added, unmet = get_nodes_for(
        prepared["available_node_types"], {head: 1}, head, prepared["max_workers"], demands, score
    )
    return dict(added), list(unmet)


def test_the_launcher_takes_the_file():
    validate_config(prepare_config(copy.deepcopy(LAUNCHED)))


def test_a_key_that_the_launcher_does_not_know_would_be_refused():
    broken = copy.deepcopy(LAUNCHED)
    broken["available_node_types"]["cpu"]["instance"] = "m6i.8xlarge"
    with pytest.raises(Exception, match="instance"):
        validate_config(prepare_config(broken))


def test_the_head_does_no_work():
    head = LAUNCHED["available_node_types"][LAUNCHED["head_node_type"]]
    assert head["resources"] == {"CPU": 0}


def test_the_autoscaler_finds_room_for_every_worker_of_the_packaged_config():
    added, unmet = nodes_for({"face": RUN.face, "flow": RUN.flow})
    assert not unmet
    types = LAUNCHED["available_node_types"]
    assert set(added) == set(types) - {LAUNCHED["head_node_type"]}
    assert all(count <= types[name]["max_workers"] for name, count in added.items())


def test_face_workers_go_to_cpu_nodes_and_flow_workers_to_gpu_nodes():
    assert set(nodes_for({"face": RUN.face})[0]) == {"cpu"}
    assert set(nodes_for({"flow": RUN.flow})[0]) == {"gpu"}


def test_a_resource_that_no_node_offers_leaves_the_pool_without_a_place():
    elsewhere = RUN.face.model_copy(update={"resources": {"no_such_node": 0.001}})
    added, unmet = nodes_for({"face": elsewhere})
    assert not added
    assert len(unmet) == elsewhere.workers


def test_the_workers_of_a_node_fit_into_its_memory():
    gib = {"m6i.8xlarge": 128, "p4de.24xlarge": 1152}
    for pool, name in ((RUN.face, "cpu"), (RUN.flow, "gpu")):
        node = LAUNCHED["available_node_types"][name]
        per_node = min(int(node["resources"][kind] / amount) for kind, amount in pool.needs.items() if amount)
        assert per_node * pool.recycle_mib / 1024 < gib[node["node_config"]["InstanceType"]]


def test_the_run_waits_for_nodes_that_are_not_there_yet():
    sizes = pool_sizes(RUN, {"CPU": 0.0})
    assert (sizes.face, sizes.flow) == (RUN.face.workers, RUN.flow.workers)
    assert RUN.wait_s > 600  # a node installs the project first


def test_a_block_fits_into_what_the_run_may_hold():
    assert large_block(config.load(CurationConfig, "cluster")) is None


def test_setup_installs_this_project_with_its_pinned_versions_and_fetches_the_weights():
    (remote,) = (remote for remote, local in LAUNCHED["file_mounts"].items() if local == ".")
    commands = "\n".join(LAUNCHED["setup_commands"])
    assert Path(remote).name == "faceloom"
    assert (ROOT / "constraints.txt").is_file()
    assert re.search(r"pip install .*--constraint ~/faceloom/constraints.txt .*~/faceloom$", commands, re.MULTILINE)
    assert "models fetch --for cluster" in commands
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for package in re.findall(r"^DEBIAN_PACKAGES := (.*)$", makefile, re.MULTILINE)[0].split():
        assert package in commands


def test_no_node_starts_ray_without_the_token_that_it_is_sent():
    assert any(remote.endswith("/.ray/auth_token") for remote in LAUNCHED["file_mounts"])
    starts = [*LAUNCHED["head_start_ray_commands"], *LAUNCHED["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)


def test_the_dashboard_through_which_jobs_come_listens_on_the_head_alone():
    assert any("--dashboard-host=127.0.0.1" in command for command in LAUNCHED["head_start_ray_commands"])
