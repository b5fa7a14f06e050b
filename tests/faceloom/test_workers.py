import pytest

from faceloom.errors import UserError
from faceloom.workers import WorkersConfig, pool_size, refuse_unreserved_gpu


@pytest.mark.parametrize(
    ("run", "resources", "workers"),
    [
        (WorkersConfig(), {"CPU": 8.0}, 8),
        (WorkersConfig(cpus=4, gpus=1), {"CPU": 32.0, "GPU": 4.0}, 4),
        (WorkersConfig(cpus=8, gpus=0.5), {"CPU": 16.0, "GPU": 4.0}, 2),
        (WorkersConfig(workers=9), {"CPU": 1.0}, 9),
    ],
)
def test_the_pool_fills_the_cluster_unless_told(run: WorkersConfig, resources: dict[str, float], workers: int) -> None:
    assert pool_size(run, resources, worker="an encoder", section="run") == workers


def test_a_cluster_without_room_for_one_worker_is_refused_with_the_keys_to_change() -> None:
    with pytest.raises(UserError, match=r"1 CPU and 2 GPU; .* has 8 CPU and 1 GPU; lower run.cpus or run.gpus"):
        pool_size(WorkersConfig(gpus=2), {"CPU": 8.0, "GPU": 1.0}, worker="an encoder", section="run")


def test_a_gpu_that_no_worker_reserves_is_refused_with_the_keys_to_change() -> None:
    keys = {"device_key": "codec.device", "gpus_key": "run.gpus"}
    with pytest.raises(UserError, match=r"codec\.device is cuda, but run\.gpus is 0: .* set run\.gpus"):
        refuse_unreserved_gpu("cuda", 0.0, **keys)
    refuse_unreserved_gpu("cuda", 0.5, **keys)
    refuse_unreserved_gpu("auto", 0.0, **keys)
