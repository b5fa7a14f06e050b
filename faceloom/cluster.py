"""The Ray cluster of a run: joined at an address, or started on this machine."""

import os
import socket

import ray

from faceloom.errors import UserError


def connect(address: str | None) -> dict[str, float]:
    """Join the cluster at ``address``, or start one on this machine; returns its resources (CPU, GPU, ...).

    Without ``address``, ``RAY_ADDRESS`` is asked, which Ray sets for the jobs it submits. Raises :class:`UserError` if no
    cluster is there, or none can be started.
    """
    if not ray.is_initialized():
        # "local", since None would join, or wait minutes for, whatever cluster `ray start` last noted on this machine.
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        _refuse_dead_address(address)
        # MediaPipe writes to stderr for every clip; failures reach the ledger with their message.
        quiet = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
        # An actor that reserves no GPU sees none, so that `device: auto` never takes one behind the scheduler's back.
        hidden = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
        os.environ.update(hidden)
        # The driver's models folder, where a node has it, too; what a node lacks there it fetches into its own cache.
        models = os.environ.get("FACELOOM_MODELS")
        shared = {"FACELOOM_MODELS": os.path.abspath(models)} if models else {}  # noqa: PTH100 - no symlinks resolved
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": quiet | hidden | shared},
                logging_level="error",
            )
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(address, error) from None
        except Exception as error:
            # Ray has no class of its own for it: its processes have 30 s to answer each other.
            if "timed out during startup" not in str(error):
                raise
            raise UserError(
                "Ray did not start on this machine within 30 s, as when others keep its processors or disks busy; try again "
                "when they do less, or join a cluster that runs: --address HOST:PORT"
            ) from None
    return dict(ray.cluster_resources())


def _refuse_dead_address(address: str) -> None:
    """Ray itself tries for minutes before it gives up an address where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.rpartition("//")[2].strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    # Ray 2.60 has clusters ask for a token where there is one, and uses it itself only for clusters that it finds itself.
    token = "" if os.environ.get("RAY_AUTH_MODE") else "; if there is one and it asks for a token: RAY_AUTH_MODE=token"
    return UserError(f"no Ray cluster at {address}: {error}; start one with: ray start --head{token}")
