"""How many workers of each pool a cluster is given, and what a user is told before a run."""

from typing import Any

import pytest

from curation.config import CurationConfig, RunConfig
from curation.preflight import PoolSizes, advice, large_block, pool_sizes
from faceloom.errors import UserError


def sizes(resources: dict[str, float], **run: Any) -> PoolSizes:
    return pool_sizes(RunConfig.model_validate(run), resources)


def test_pools_on_cpus_share_them() -> None:
    assert sizes({"CPU": 2}) == PoolSizes(face=2, flow=2)
    assert sizes({"CPU": 1}) == PoolSizes(face=1, flow=1)


def test_a_flow_pool_on_gpus_takes_them_all_and_face_the_cpus_that_are_left() -> None:
    flow = {"gpus": 0.5, "cpus": 1.0}
    assert sizes({"CPU": 64, "GPU": 8}, flow=flow, face={"cpus": 1.0}) == PoolSizes(face=48, flow=16)


def test_a_pool_of_a_given_size_leaves_its_room_to_the_other() -> None:
    assert sizes({"CPU": 8}, face={"workers": 4, "cpus": 1.0}, flow={"cpus": 1.0}) == PoolSizes(face=4, flow=4)
    assert sizes({"CPU": 8}, flow={"workers": 2, "cpus": 1.0}, face={"cpus": 1.0}) == PoolSizes(face=6, flow=2)


def test_more_workers_than_fit_may_wait_for_nodes_but_each_pool_has_one() -> None:
    assert sizes({"CPU": 2}, face={"workers": 8}) == PoolSizes(face=8, flow=1)


def test_workers_that_are_all_asked_for_by_number_may_wait_for_every_node() -> None:
    run = {"face": {"workers": 8}, "flow": {"workers": 2, "gpus": 1}}
    assert sizes({"node:__internal_head__": 1.0}, **run) == PoolSizes(face=8, flow=2)


def test_further_resources_place_a_pool_and_bound_it() -> None:
    run = {"face": {"resources": {"face_node": 0.5}}, "flow": {"gpus": 0.5, "cpus": 1.0}}
    assert sizes({"CPU": 64, "GPU": 4, "face_node": 3}, **run) == PoolSizes(face=6, flow=8)


@pytest.mark.parametrize(
    ("resources", "run", "missing"),
    [
        ({"CPU": 0.5}, {}, "1 CPU, and the cluster has 0.5"),
        ({"CPU": 8}, {"flow": {"gpus": 1, "workers": 1}}, "1 GPU, and the cluster has 0"),
        ({"CPU": 1}, {"face": {"cpus": 1.0}}, "1.5 CPU, and the cluster has 1"),
        ({"CPU": 8}, {"face": {"resources": {"face_node": 1}}}, "1 face_node, and the cluster has 0"),
    ],
)
def test_no_room_for_one_worker_of_each_is_refused_with_what_is_missing(
    resources: dict[str, float], run: dict[str, Any], missing: str
) -> None:
    with pytest.raises(UserError, match=f"together need {missing}"):
        sizes(resources, **run)


@pytest.mark.parametrize(("most", "block_clips", "told"), [(4, 256, None), (5, 256, "204"), (1, 1025, "1024")])
def test_a_block_that_may_outgrow_the_memory_for_samples_is_warned_of(
    most: int, block_clips: int, told: str | None
) -> None:
    """4 MiB a sample, 4096 MiB by default."""
    settings = CurationConfig.model_validate({"window": {"most": most}, "run": {"block_clips": block_clips}})
    note = large_block(settings)
    assert note is None if told is None else note is not None and note.endswith(f"lower run.block_clips to {told}")


def test_a_run_is_advised_of_all_that_it_could_do_better() -> None:
    settings = CurationConfig.model_validate({"window": {"most": 9}, "motion": {"min_head_range_deg": 0.5}})
    told = advice(settings, {"CPU": 2, "GPU": 1})
    assert [next(word for word in ("GPU", "block_clips", "head_range") if word in note) for note in told] == [
        "GPU",
        "block_clips",
        "head_range",
    ]
    assert advice(CurationConfig(), {"CPU": 2}) == []
