"""Files that make a reader of videos read something else, or more than it can hold."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from curation import video
from curation.containers import MAX_PIXELS, open_footage, packets_of
from curation.sample_video import read_sound
from curation.sampling import sample
from curation.sources import Clip
from curation.video import FrameReader, OversizedVideoError, UnreadableVideoError, VideoConfig, VideoError, probe
from tests.videos import clicks, numbered, write

FRAMES = [numbered(i) for i in range(30)]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A video that no listed file is."""
    return write(tmp_path / "secret.ts", FRAMES, sound=clicks(1, [0.5]))


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port of this machine, and who called it."""
    calls: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                calls.append(str(address))
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)


def hls(target: str) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{target}\n#EXT-X-ENDLIST\n"


def ffconcat(target: str) -> str:
    return f"ffconcat version 1.0\nfile {target}\nduration 1.2\n"


def dash(target: str) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1.2S"><Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" '
        f'bandwidth="9"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )


def sdp(target: str) -> str:
    return f"v=0\no=- 0 0 IN IP4 {target}\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


@pytest.mark.parametrize("playlist", [hls, ffconcat, dash, sdp])
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.m3u8"])
def test_a_list_of_other_files_is_no_video_whatever_it_is_called(
    tmp_path: Path, secret: Path, playlist: Callable[[str], str], name: str
):
    path = tmp_path / name
    path.write_text(playlist(secret.name))
    with pytest.raises(VideoError):
        probe(str(path))
    with pytest.raises(av.FFmpegError):
        read_sound(str(path), 0, 1)


def test_the_message_says_that_it_is_a_list(tmp_path, secret):
    path = tmp_path / "x.mp4"
    path.write_text(ffconcat(secret.name))
    with pytest.raises(UnreadableVideoError, match="no container of footage but a playlist"):
        probe(str(path))


@pytest.mark.parametrize("playlist", [hls, ffconcat])
def test_without_the_list_of_formats_the_other_file_would_be_read(tmp_path, secret, playlist):
    path = tmp_path / "x.m3u8"
    path.write_text(playlist(secret.name))
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == len(FRAMES)


def test_a_playlist_calls_nobody(tmp_path, listener):
    port, calls = listener
    path = tmp_path / "x.m3u8"
    path.write_text(hls(f"http://127.0.0.1:{port}/x.ts"))
    with pytest.raises(VideoError):
        probe(str(path))
    assert not calls
    with pytest.raises(av.FFmpegError):
        av.open(str(path), options={"protocol_whitelist": "file,http,tcp"})
    assert calls  # so the address is a good one


@pytest.mark.parametrize(
    "name", ["concat:secret.ts|secret.ts", "subfile,,start,0,end,0,,:secret.ts", "data:,secret.ts"]
)
def test_a_name_that_spells_a_protocol_is_the_name_of_a_file(tmp_path, secret, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(write(tmp_path / "x.mp4", FRAMES[:7]).read_bytes())
    assert len(probe(name).pts_s) == 7
    assert len(list(FrameReader(probe(name)).frames(range(7)))) == 7


def test_a_name_with_a_pattern_is_no_sequence_of_pictures(tmp_path):
    for i in range(3):
        with av.open(str(tmp_path / f"{i}.png"), "w", format="image2", options={"update": "1"}) as picture:
            stream = picture.add_stream("png")
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            picture.mux(stream.encode(av.VideoFrame.from_ndarray(FRAMES[i], format="rgb24")))
            picture.mux(stream.encode(None))
    with pytest.raises(av.FFmpegError):
        open_footage(str(tmp_path / "%d.png"))


def test_a_movie_that_refers_to_another_file_for_its_pictures_does_not_get_them(tmp_path):
    secret = write(tmp_path / "secret.mov", FRAMES, options={"bf": "0"})
    movie = bytearray(secret.read_bytes())
    at = movie.index(b"mdat")
    movie[at + 4 : at + 4 + _box_size(movie, at) - 8] = bytes(_box_size(movie, at) - 8)  # its own pictures are gone
    path = tmp_path / "x.mov"
    path.write_bytes(movie)
    _refer(path, secret)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert len(list(container.decode(video=0))) == len(FRAMES)  # so the reference is a good one
    with pytest.raises(VideoError):
        list(FrameReader(probe(str(path))).frames([0]))


def _box_size(data: bytearray, at: int) -> int:
    return int(struct.unpack(">I", data[at - 4 : at])[0])


def _refer(movie: Path, target: Path) -> None:
    """Let the one data reference of ``movie``, which says "this very file", be an alias of ``target``; moov comes last."""
    data = bytearray(movie.read_bytes())
    at = data.index(b"dref")
    name = str(target).encode()
    # An alias record is 150 bytes of names and levels, empty here, and typed strings; type 2 is the whole path.
    record = bytes(150) + struct.pack(">HH", 2, len(name)) + name + b"\0" * (len(name) % 2) + b"\xff" * 4
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    start = at + 4 + 8  # after version, flags and count
    grown = len(entry) - 12
    data[start : start + 12] = entry
    data[at - 4 : at] = struct.pack(">I", _box_size(data, at) + grown)
    for parent in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        where = data.rindex(parent, 0, at)
        data[where - 4 : where] = struct.pack(">I", _box_size(data, where) + grown)
    movie.write_bytes(data)


def test_a_picture_larger_than_any_footage_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "x.mkv"
    side = int(MAX_PIXELS**0.5) + 16
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = side, side, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((side, side), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    assert path.stat().st_size < 100_000
    with pytest.raises(VideoError):
        probe(str(path))
    monkeypatch.setattr(video, "open_footage", av.open)
    monkeypatch.setattr(video, "DECODER_OPTIONS", {})
    with pytest.raises(OversizedVideoError):  # decoded, and only then refused
        probe(str(path))


def test_a_size_that_only_the_aspect_makes_absurd_is_refused(tmp_path):
    path = write(tmp_path / "x.mp4", FRAMES)
    data = bytearray(path.read_bytes())
    at = data.index(b"avcC") - 4
    pasp = struct.pack(">I4sII", 16, b"pasp", 2_000_000, 1)
    if (found := data.find(b"pasp")) >= 0:
        data[found - 4 : found + 12] = pasp
    else:
        data[at:at] = pasp
        for parent in (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
            where = data.rindex(parent, 0, at)
            data[where - 4 : where] = struct.pack(">I", _box_size(data, where) + 16)
    path.write_bytes(data)
    with pytest.raises(OversizedVideoError, match="re-encode or remove"):
        probe(str(path))


def test_a_table_of_more_frames_than_any_footage_has_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "x.mp4", FRAMES)
    monkeypatch.setattr(video, "MAX_FRAMES", len(FRAMES) - 1)
    with pytest.raises(OversizedVideoError, match="states more than 29 frames"):
        probe(str(path))


def test_two_frames_a_thousand_years_apart_are_not_sampled_in_between(tmp_path):
    path = write(tmp_path / "x.mkv", FRAMES[:2])
    probed = probe(str(path))
    far = video.Probe(**{**vars(probed), "pts_s": np.array([0.0, 3e10])})
    with pytest.raises(OversizedVideoError, match="hours"):
        sample(far, Clip("test", "x", str(path)), VideoConfig())


def test_text_that_is_not_utf_8_is_nothing_against_a_file(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "T" * 8
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TTTTTTTT", b"caf\xe9\xff\xfe\x80\x81"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert len(probe(str(path)).pts_s) == len(FRAMES)


def test_a_broadcast_that_brings_in_another_stream_on_its_way_is_read_to_its_end():
    class Broadcast:
        """Whether PyAV raises depends on what lies behind an array of its own, so it cannot be had from a file at will."""

        def demux(self, stream: str) -> Iterator[str]:
            yield from (f"first of {stream}", f"last of {stream}")
            raise IndexError("list index out of range")

    assert list(packets_of(Broadcast(), "pictures")) == ["first of pictures", "last of pictures"]
