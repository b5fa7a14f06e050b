"""The workers of a run on Ray: what each of them needs, and how many a cluster has room for."""

from collections.abc import Mapping

from pydantic import Field

from faceloom.config import Section
from faceloom.device import Device
from faceloom.errors import UserError


class WorkersConfig(Section):
    """Workers that are all alike, and what is done when they are slow or lacking."""

    workers: int = Field(0, ge=0)
    """0 means as many as the cluster has room for, also when nodes come or go."""
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    """What Ray reserves for each worker. A worker sees only the GPUs it reserves."""
    threads: int = Field(1, ge=1)
    """Torch's threads in a worker, on which the last bits of a CPU's results depend."""
    deadline_s: float = Field(3600.0, gt=0)
    """Seconds that one item may take; then its worker is killed, and after a second time the item has failed."""
    wait_s: float = Field(900.0, gt=0)
    """Seconds without any worker after which the run ends."""

    @property
    def needs(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {"CPU": self.cpus, "GPU": self.gpus}


def pool_size(config: WorkersConfig, resources: Mapping[str, float], *, worker: str, section: str) -> int:
    """How many workers a cluster with ``resources`` (Ray's totals) has room for.

    Not so if ``config.workers`` says a number: those may wait for nodes to come. Raises :class:`UserError` that names the
    missing resource, and the keys of the configuration's ``section`` to change, when there is no room for one otherwise.
    """
    if config.workers:
        return config.workers
    size = min(fits(resources.get(kind, 0.0), amount) for kind, amount in config.needs.items() if amount)
    if not size:
        has_cpus, has_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        raise UserError(
            f"{worker} needs {config.cpus:g} CPU and {config.gpus:g} GPU; "
            f"the cluster has {has_cpus:g} CPU and {has_gpus:g} GPU; "
            f"lower {section}.cpus or {section}.gpus, add nodes, or set {section}.workers to wait for nodes that are to come"
        )
    return size


def fits(amount: float, each: float) -> int:
    """How many times a resource of ``amount`` can be reserved as ``each``."""
    return max(0, int(amount / each + 1e-9))


def refuse_unreserved_gpu(device: Device, gpus: float, *, device_key: str, gpus_key: str) -> None:
    """Raise :class:`UserError` if workers are to compute on GPUs of which they reserve none."""
    if device == "cuda" and not gpus:
        raise UserError(
            f"{device_key} is cuda, but {gpus_key} is 0: a worker sees only GPUs it reserves; set {gpus_key}"
        )
