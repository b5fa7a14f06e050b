"""A short fuzz of what reads footage: every damaged file is read or refused in words, in one process, which lives on.

``python -m bench.fuzz`` is the long one: a thousand files through the true engine.
"""

from pathlib import Path

import pytest

from bench.mutations import KINDS, mutate
from curation.sample_video import read_sound
from curation.sampling import sample
from curation.sources import Clip
from curation.video import FrameReader, VideoConfig, VideoError, probe
from faceloom.memory import resident_mib
from tests.videos import clicks, number_of, numbered, write

FRAMES = [numbered(i) for i in range(30)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    sound = clicks(1.2, [0.5])
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    made = [
        write(folder / "a.mp4", FRAMES, sound=sound),
        write(folder / "fragmented.mp4", FRAMES, container_options=fragmented),
        write(folder / "other.mp4", [numbered(i, 64, 96) for i in range(30)], codec="mpeg4"),
        write(folder / "a.mkv", FRAMES, sound=sound),
        write(folder / "a.ts", FRAMES, sound=sound),
        write(folder / "a.avi", FRAMES, codec="mpeg4"),
    ]
    return {path.name: path.read_bytes() for path in made}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_in_words_and_the_next_one_is_read(files, kind, tmp_path: Path):
    sane = tmp_path / "sane.mp4"
    sane.write_bytes(files["a.mp4"])
    before = resident_mib()
    refused: dict[str, str] = {}
    for seed in range(12):
        name = sorted(files)[seed % len(files)]
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(mutate(kind, files, name, seed))
        try:
            probed = probe(str(path))
            sampling = sample(probed, Clip("fuzz", name, str(path)), VideoConfig())
            for frame in FrameReader(probed).frames(sampling.indices[:100]):
                assert frame.shape == (probed.height, probed.width, 3)
            _read_sound(path)
        except VideoError as error:
            refused[str(path)] = str(error)
    assert all(path in message for path, message in refused.items())
    assert [number_of(frame) for frame in FrameReader(probe(str(sane))).frames([0, 29])] == [0, 29]
    assert resident_mib() - before < 1024


def _read_sound(path: Path) -> None:
    import av

    try:
        read_sound(str(path), 0.0, 1.0)
    except (av.FFmpegError, ValueError):  # what the draft of a sample is prepared for: it then goes without sound
        return
