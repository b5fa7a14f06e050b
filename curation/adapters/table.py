"""The datasets that ``faceloom ingest`` knows. A row and a module make another; nothing else has to know of it.

Adapters are imported when they are needed: the command line reads this table to print its help.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from curation.adapters.entries import Entry


@dataclass(frozen=True)
class Dataset:
    """A dataset: what it is called, whose terms it comes under, where to get it, and what its folder has to look like.

    ``adapter`` is ``module:function``; the function takes the folder and gives an entry for everything it meets there.
    """

    name: str
    adapter: str
    summary: str
    licence: str
    origin: str
    layout: str

    def entries(self, root: Path) -> Iterable["Entry"]:
        """What ``root`` holds, in the order of the manifest.

        Raises :class:`UserError` when it is not laid out as it should be.
        """
        module, _, function = self.adapter.partition(":")
        return cast("Callable[[Path], Iterable[Entry]]", getattr(import_module(module), function))(root)


FOLDER = Dataset(
    name="folder",
    adapter="curation.adapters.folder:entries",
    summary="Any folder of videos, one clip a file.",
    licence="unknown",
    origin="your own footage",
    layout="videos, however deep they lie; a video's name ends in .mp4, .mkv, .mov, .webm or another of its containers",
)
DEMO = Dataset(
    name="demo",
    adapter="curation.demo:demo_clips",
    summary="Make the demo's videos, each for one outcome or to train on, and list them.",
    licence="BSD-3-Clause and CC-BY-3.0, by clip",
    origin="`faceloom models fetch`",
    layout="the videos are written to it",
)
HDTF = Dataset(
    name="hdtf",
    adapter="curation.adapters.hdtf:entries",
    summary="HDTF: talking heads from YouTube, by its tables of time spans.",
    licence="CC-BY-4.0",
    origin="https://github.com/MRzzm/HDTF; videos by https://github.com/universome/HDTF",
    layout=(
        "tables {RD,WDA,WRA}_{annotion_time,video_url,crop_wh,crop_ratio,resolution}.txt, and videos: whole ones "
        "(RD_Radio11.mp4 or Radio11.mp4) or cut ones (Radio11_0.mp4, or RD_Radio11_000.mp4 as universome's script has it)"
    ),
)
RAVDESS = Dataset(
    name="ravdess",
    adapter="curation.adapters.ravdess:entries",
    summary="RAVDESS: 24 actors who speak and sing in eight emotions.",
    licence="CC-BY-NC-SA-4.0",
    origin="https://zenodo.org/records/1188976",
    layout="unpacked archives Video_Speech_Actor_NN.zip and Video_Song_Actor_NN.zip: Actor_NN/MM-VV-EE-II-SS-RR-AA.mp4",
)
NERSEMBLE = Dataset(
    name="nersemble",
    adapter="curation.adapters.nersemble:entries",
    summary="NeRSemble v2: faces from 16 cameras, of which the two most frontal are listed.",
    licence="NeRSemble terms of use (research only)",
    origin="https://github.com/tobias-kirschstein/nersemble-data",
    layout=(
        "PPP/sequences/SEQUENCE/images/cam_SERIAL.mp4 and PPP/calibration/camera_params.json; metadata_sequences.csv, "
        "if you have it, beside the participants"
    ),
)
DFEW = Dataset(
    name="dfew",
    adapter="curation.adapters.dfew:entries",
    summary="DFEW: expressions in films, by their original clips.",
    licence="DFEW licence agreement (non-commercial research only)",
    origin="https://dfew-dataset.github.io",
    layout=(
        "unpacked archives of Clip/original (videos NNNNN.mp4), Annotation/annotation.xlsx and "
        "EmoLabel_DataSplit/{train,test}(single-labeled)/set_N.csv"
    ),
)
PANDA70M = Dataset(
    name="panda70m",
    adapter="curation.adapters.panda70m:entries",
    summary="Panda-70M: clips of YouTube videos that its own video2dataset has downloaded.",
    licence="Panda-70M licence (Snap, non-commercial research) and HD-VILA-100M terms",
    origin="https://github.com/snap-research/Panda-70M",
    layout="the CSV file that was downloaded by, and what video2dataset wrote: SSSSS/SSSSSVV_CCCCC.mp4 with a .json each",
)

DATASETS = (FOLDER, DEMO, HDTF, RAVDESS, NERSEMBLE, DFEW, PANDA70M)
