"""The face stage over people and composites, in processes, with what was decided kept for the next time."""

import hashlib
import json
import logging
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from bench.composites import ASPECT, Person, widened
from bench.filter_cases import FPS, Composite, composites
from bench.filter_labels import Result, Sample
from curation.config import CurationConfig
from curation.drafts import Draft
from curation.outcome import Failed, Outcome, Rejected
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.video import FrameReader, probe
from curation.workers import FaceStage
from landmarks.landmarker import landmark_box
from landmarks.record import dequantise
from shards.schema import WIDTH, decode_field
from shards.storage import write_atomic

Job, Answer = TypeVar("Job"), TypeVar("Answer")

LINES = 480
"""Height of the people's frames, px; footage that has less keeps what it has."""
_DECIDING = ("curation.", "landmarks.", "bench.composites", "bench.filter_cases")
_VIDEO = SampleVideoConfig(crf=18, preset="veryfast")


@dataclass(frozen=True)
class Footage:
    """A video with one person alone, and the configuration that it is curated with."""

    name: str
    path: str
    settings: CurationConfig

    @property
    def clip(self) -> Clip:
        """All of it."""
        return Clip("filters", self.name, self.path)


class Store:
    """Results and people below a folder, each under a digest of all that it depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def result(self, key: str) -> Result | None:
        """What was stored under ``key``."""
        file = self._folder / f"{key}.json"
        return Result.from_json(json.loads(file.read_text())) if file.is_file() else None

    def keep(self, key: str, result: Result) -> None:
        """Store a result."""
        write_atomic(self._folder / f"{key}.json", json.dumps(result.as_json()).encode())

    def person(self, key: str, name: str) -> Person | None:
        """The person stored under ``key``, its frames mapped and not read."""
        files = [self._folder / f"{key}.{part}.npy" for part in ("boxes", "frames")]
        if not all(file.is_file() for file in files):
            return None
        boxes, frames = (np.load(file, mmap_mode="r") for file in files)
        return Person(name, frames, np.asarray(boxes))

    def keep_person(self, key: str, person: Person) -> None:
        """Store a person."""
        for part in ("frames", "boxes"):
            values = getattr(person, part)
            write_atomic(self._folder / f"{key}.{part}.npy", lambda file, v=values: np.save(file, v))


def digest(*parts: str) -> str:
    """32 hex digits of ``parts`` and of the code that decides clips and makes composites."""
    total = hashlib.blake2b("\0".join(parts).encode(), digest_size=16)
    ours = {name: module for name, module in sys.modules.items() if name.startswith(_DECIDING)}
    for _, module in sorted(ours.items()):
        if module.__file__:
            total.update(Path(module.__file__).read_bytes())
    return total.hexdigest()


def file_digest(path: str) -> str:
    """Of the bytes of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def decide(stage: FaceStage, clip: Clip) -> tuple[Result, list[Draft]]:
    """What the face stage makes of ``clip``, and a draft for each of its samples."""
    decided = stage.decide(clip)
    drafts = [draft for _, draft in decided if draft is not None]
    first, _ = decided[0]
    return _result(clip, first.outcome, first.statistics, drafts), drafts


def _result(clip: Clip, outcome: Outcome, statistics: dict[str, float], drafts: Sequence[Draft]) -> Result:
    """The outcome as a label judges it; frames are counted at 12 a second from the first of the video."""
    match outcome:
        case Rejected(rule, value, threshold):
            return Result("rejected", rule, value, threshold, statistics, ())
        case Failed(stage, error, message):
            return Result("failed", f"{error} in {stage}: {message}", None, None, statistics, ())
    first_s = probe(clip.path).pts_s[0]
    samples = []
    for draft in drafts:
        pts_s = np.array(draft.meta["pts_s"][: draft.meta["n_valid"]]) - first_s
        x, y, w, h = draft.meta["crop_xywh"]
        # What the crop shows of the source; the rest of it is black.
        left, right = (x + column * w / WIDTH for column in draft.meta["valid_x0x1"])
        samples.append(Sample(np.rint(pts_s * FPS).astype(int), (left, y, right - left, h)))
    return Result("kept", "", None, None, statistics, tuple(samples))


def person_of(footage: Footage, draft: Draft) -> Person:
    """The person of a kept sample, as the source shows them in its frames, in a frame of 16:9."""
    valid = draft.meta["n_valid"]
    probed = probe(footage.path)
    indices = np.searchsorted(probed.pts_s, np.array(draft.meta["pts_s"][:valid]) - 1e-4)
    frames = np.stack(list(FrameReader(probed).frames(indices)))
    points = dequantise(decode_field("landmarks.u16.npy", draft.fields["landmarks.u16.npy"]))[:valid]
    boxes = [landmark_box(p, probed.width, probed.height) for p in points]
    person = Person(footage.name, frames, np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes]))
    lines = min(LINES, person.height // 2 * 2)
    person = person.sized(lines)
    return widened(person, round(lines * ASPECT / 4) * 4)


# --- in processes ----------------------------------------------------------------------------------------------------


@cache
def stage(settings: CurationConfig) -> FaceStage:
    """The face stage of this process with ``settings``."""
    return FaceStage(settings)


@cache
def _composites(folder: Path, keys: tuple[tuple[str, str], ...]) -> dict[str, Composite]:
    people = people_of(folder, dict(keys))
    return {c.name: c for c in composites(people, CurationConfig().character)}


def _decide_composite(job: tuple[str, CurationConfig, Path, tuple[tuple[str, str], ...]]) -> tuple[str, Result]:
    name, settings, folder, keys = job
    frames = _composites(folder, keys)[name].build()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "composite.mp4"
        path.write_bytes(encode_sample(frames, FPS, None, _VIDEO))
        return name, decide(stage(settings), Clip("filters", name, str(path)))[0]


def _decide_video(footage: Footage) -> tuple[str, Result, Person | None]:
    result, drafts = decide(stage(footage.settings), footage.clip)
    return footage.name, result, person_of(footage, drafts[0]) if drafts else None


def _start() -> None:
    for stream in (1, 2):  # MediaPipe writes to them past Python
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    logging.disable(logging.CRITICAL)


def in_pool(call: Callable[[Job], Answer], jobs: Sequence[Job], processes: int) -> Iterator[Answer]:
    """What ``call`` makes of each of ``jobs``, as it comes; without jobs no process is started."""
    if jobs:
        with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs)), _start) as pool:
            yield from pool.imap_unordered(call, jobs)


def look_at_videos(
    footage: Sequence[Footage], folder: Path, processes: int
) -> tuple[dict[str, Result], dict[str, str]]:
    """Each video's result, and for each person that one of them kept the key they are stored under."""
    store, keys, results = Store(folder), {}, {}
    for each in footage:
        keys[each.name] = digest("video", each.name, file_digest(each.path), each.settings.model_dump_json())
        known = store.result(keys[each.name])
        if known is not None:
            results[each.name] = known
    left = [each for each in footage if each.name not in results]
    for name, result, person in in_pool(_decide_video, left, processes):
        if person is not None:
            store.keep_person(keys[name], person)
        store.keep(keys[name], result)
        results[name] = result
    ordered = {each.name: results[each.name] for each in footage}
    return ordered, {name: keys[name] for name, result in ordered.items() if result.outcome == "kept"}


def people_of(folder: Path, keys: Mapping[str, str]) -> list[Person]:
    """The people stored under ``keys``, by their names."""
    store = Store(folder)
    return [person for name, key in keys.items() if (person := store.person(key, name)) is not None]


def look_at_composites(
    chosen: Sequence[Composite],
    settings: Mapping[str, CurationConfig],
    keys: Mapping[str, str],
    folder: Path,
    processes: int,
) -> Iterator[tuple[str, Result]]:
    """The name and the result of each composite, those that are known first; ``settings`` by the name of its person."""
    store = Store(folder)
    own = {c.name: digest("composite", c.name, settings[c.main].model_dump_json(), *keys.values()) for c in chosen}
    left = []
    for composite in chosen:
        known = store.result(own[composite.name])
        if known is None:
            left.append((composite.name, settings[composite.main], folder, tuple(keys.items())))
        else:
            yield composite.name, known
    for name, result in in_pool(_decide_composite, left, processes):
        store.keep(own[name], result)
        yield name, result
