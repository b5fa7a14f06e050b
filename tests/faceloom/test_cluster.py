import os
from pathlib import Path
from typing import Any

import pytest
import ray

from faceloom import cluster
from faceloom.errors import UserError


@pytest.fixture
def joined(monkeypatch) -> dict[str, Any]:
    """What Ray is asked for."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", os.environ.get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1"))
    return asked


def test_workers_look_for_models_where_the_driver_does(joined, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACELOOM_MODELS", "models")
    cluster.connect(None)
    assert joined["runtime_env"]["env_vars"]["FACELOOM_MODELS"] == str(tmp_path / "models")


def test_without_a_folder_of_the_drivers_each_node_keeps_its_own(joined, monkeypatch):
    monkeypatch.delenv("FACELOOM_MODELS", raising=False)
    cluster.connect(None)
    assert "FACELOOM_MODELS" not in joined["runtime_env"]["env_vars"]


def test_a_job_joins_the_cluster_that_runs_it(joined, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    cluster.connect(None)
    assert joined["address"] == "auto"


def test_an_address_that_is_given_comes_before_the_one_in_the_environment_and_nothing_joins_by_accident(
    joined, monkeypatch
):
    cluster.connect(None)
    assert joined["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    cluster.connect("auto")
    assert joined["address"] == "auto"


def test_a_machine_too_busy_to_start_ray_is_told_without_a_traceback(joined, monkeypatch):
    def start(message: str) -> None:
        def fail(**_: Any) -> None:
            raise Exception(message)

        monkeypatch.setattr(ray, "init", fail)
        cluster.connect(None)

    with pytest.raises(UserError, match=r"Ray did not start on this machine within 30 s.*--address"):
        start("The current node timed out during startup. This could happen because some of the raylet failed.")
    with pytest.raises(Exception, match="something else"):
        start("something else")
