"""The networks that the user may supply: which are there, and what is told of those that are not."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curation.recognition import Recogniser
from evaluation.metrics import Metric
from evaluation.scrfd import Scrfd
from faceloom import models
from faceloom.device import Device, torch_device

if TYPE_CHECKING:  # they need torch, which costs seconds a process; most evaluations have none of their files
    from evaluation.curricular import CurricularFace
    from evaluation.inception import Inception
    from evaluation.openpose import OpenPose


@dataclass(frozen=True)
class Networks:
    """None for one that nothing needs, or that is not there."""

    scrfd: Scrfd | None = None
    arcface: Recogniser | None = None
    curricularface: "CurricularFace | None" = None
    inception: "Inception | None" = None
    openpose: "OpenPose | None" = None


def present(metrics: Iterable[Metric]) -> set[str]:
    """Of the files that the metrics need, the names of those that are there."""
    wanted = {name for metric in metrics for name in metric.needs}
    return {name for name in wanted if models.locate_user_file(name) is not None}


def why_absent(metric: Metric, available: Collection[str]) -> str:
    """What is missing for a metric and where to put it; empty if nothing is."""
    missing = [models.user_files()[name] for name in metric.needs if name not in available]
    if not missing:
        return ""
    listed = ", ".join(f"{row.name} (put it at {row.put_at})" for row in missing)
    return f"needs {listed}; where from and under which licence: faceloom models list --json"


def load_networks(available: Collection[str], device: Device) -> Networks:
    """Those of ``available``, by their names in ``models.toml``. Raises :class:`UserError` if a file is no such network."""
    if not available:
        return Networks()
    from evaluation.curricular import CurricularFace
    from evaluation.inception import Inception
    from evaluation.openpose import OpenPose

    place = torch_device(device, "device")
    path = {name: models.user_path(name, "faceloom evaluate") for name in available}
    return Networks(
        scrfd=Scrfd(path["scrfd"]) if "scrfd" in path else None,
        arcface=Recogniser("arcface", path["arcface"], "faceloom evaluate") if "arcface" in path else None,
        curricularface=CurricularFace(path["curricularface"], place) if "curricularface" in path else None,
        inception=Inception(path["inception"], place) if "inception" in path else None,
        openpose=OpenPose(path["openpose-body"], place) if "openpose-body" in path else None,
    )
