"""Damaged and hostile video files, made from good ones: ``mutate(kind, files, name, seed)`` is a pure function.

Some kinds work on bytes of any container; the others know the boxes of an MP4 (ISO/IEC 14496-12) and write what no muxer
writes: tables without an end, times without a scale, boxes inside themselves. What they have in common is that a reader
which trusts a number in the file reads past an end, waits for ever, or asks for more memory than there is.
"""

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"udta"}
)
_EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_FOURCCS = (
    b"avc1",
    b"hvc1",
    b"mp4v",
    b"vp09",
    b"av01",
    b"mjpg",
    b"png ",
    b"rle ",
    b"raw ",
    b"apch",
    b"mp4a",
    b"jpeg",
    b"SVQ3",
)


@dataclass(frozen=True)
class Box:
    """A box of an MP4: its four letters, and where it begins, where its content begins and where it ends."""

    kind: bytes
    start: int
    content: int
    end: int
    parents: tuple["Box", ...]


def boxes(data: bytes, start: int = 0, end: int | None = None, parents: tuple[Box, ...] = ()) -> Iterator[Box]:
    """Every box, outer ones before what is in them, as far as the sizes make sense; none in another container."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and start + 16 <= end:
            size, content = struct.unpack_from(">Q", data, content)[0], start + 16
        if size < content - start or start + size > end:
            return
        box = Box(kind, start, content, start + size, parents)
        yield box
        if kind in _CONTAINERS:
            yield from boxes(data, content, box.end, (*parents, box))
        start += size


def replaced(data: bytes, box: Box, new: bytes) -> bytes:
    """``data`` with ``new`` in the place of ``box``, and the sizes of the boxes around it grown to match."""
    out = bytearray(data[: box.start] + new + data[box.end :])
    for parent in box.parents:
        if parent.content == parent.start + 8:  # else its size stands elsewhere, and is left to contradict
            size = parent.end - parent.start + len(new) - (box.end - box.start)
            out[parent.start : parent.start + 4] = struct.pack(">I", size)
    return bytes(out)


def _flips(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(2 ** rng.randint(0, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _flips_in_tables(data: bytes, rng: random.Random) -> bytes:
    """Flips outside the pictures: in ``moov``, or in the head of another container."""
    moov = next((box for box in boxes(data) if box.kind == b"moov"), None)
    start, end = (moov.content, moov.end) if moov else (0, min(len(data), 2048))
    return data[:start] + _flips(data[start:end], rng) + data[end:]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _hole(data: bytes, rng: random.Random) -> bytes:
    """A run of zeros or ones, as a bad sector or a lost packet leaves."""
    length = min(len(data) // 2, 2 ** rng.randint(2, 15))
    at = rng.randrange(len(data) - length)
    return data[:at] + rng.choice((b"\0", b"\xff")) * length + data[at + length :]


def _splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Bytes of another file in the midst, or in the place, of its own."""
    start = rng.randrange(len(other))
    piece = other[start : start + 2 ** rng.randint(3, 14)]
    at = rng.randrange(len(data))
    return data[:at] + piece + data[at + (len(piece) if rng.random() < 0.5 else 0) :]


def _spliced_box(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A box of another file in the place of its namesake, or of any box."""
    box = rng.choice([box for box in boxes(data) if box.kind != b"mdat"])
    theirs = [b for b in boxes(other) if b.kind != b"mdat"]
    twin = rng.choice([b for b in theirs if b.kind == box.kind and rng.random() < 0.9] or theirs)
    return replaced(data, box, other[twin.start : twin.end])


def _other_streams(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The pictures of another file under the tables of this one, or a stream that says it is of another kind."""
    ours = [box for box in boxes(data) if box.kind == b"mdat"]
    theirs = [box for box in boxes(other) if box.kind == b"mdat"]
    if ours and theirs and rng.random() < 0.4:
        content = other[theirs[0].content : theirs[0].end]
        length = ours[0].end - ours[0].content
        return data[: ours[0].content] + content[:length].ljust(length, b"\0") + data[ours[0].end :]
    handler = rng.choice([box for box in boxes(data) if box.kind in {b"hdlr", b"stsd"}])
    out = bytearray(data)
    if handler.kind == b"hdlr":
        out[handler.content + 8 : handler.content + 12] = rng.choice((b"soun", b"vide", b"text", b"tmcd", b"meta"))
    else:
        out[handler.content + 12 : handler.content + 16] = rng.choice(_FOURCCS)
    return bytes(out)


def _number(box: bytes, offset: int, form: str = ">I") -> Callable[[bytes, random.Random], bytes]:
    """Some of the boxes called ``box`` have an extreme number ``offset`` bytes into their content."""

    def change(data: bytes, rng: random.Random) -> bytes:
        out = bytearray(data)
        found = [each for each in boxes(data) if each.kind == box]
        for each in found:
            size = struct.calcsize(form)
            if rng.random() < 0.7 and each.content + offset + size <= each.end:
                value = rng.choice(_EXTREMES) if rng.random() < 0.7 else rng.getrandbits(8 * size)
                struct.pack_into(form, out, each.content + offset, value % (1 << 8 * size))
        return bytes(out)

    return change


def _absurd_size(data: bytes, rng: random.Random) -> bytes:
    """Width and height in the sample entry, in the track header, or in a pixel aspect that no screen has."""
    entry = next(box for box in boxes(data) if box.kind == b"stsd")
    out = bytearray(data)
    width, height = rng.choice(((0, 0), (1, 1), (65535, 65535), (16384, 16384), (65535, 1), (7, 60001)))
    if rng.random() < 0.6:
        struct.pack_into(">HH", out, entry.content + 8 + 32, width, height)
    for header in (box for box in boxes(data) if box.kind == b"tkhd"):
        if rng.random() < 0.6:
            struct.pack_into(">II", out, header.end - 8, width << 16, height << 16)
        if rng.random() < 0.3:
            struct.pack_into(
                ">9i", out, header.end - 44, *(rng.choice((0, 1 << 16, -(1 << 16), 1 << 30)) for _ in range(9))
            )
    data = bytes(out)
    if rng.random() < 0.5:
        horizontal, vertical = rng.choice(((0, 1), (1, 0), (1, 0xFFFFFFFF), (0xFFFFFFFF, 1), (60000, 1), (1, 60000)))
        aspect = struct.pack(">I4sII", 16, b"pasp", horizontal, vertical)
        new = bytearray(data[entry.start : entry.end] + aspect)
        struct.pack_into(">I", new, 0, len(new))
        struct.pack_into(">I", new, 16, struct.unpack_from(">I", new, 16)[0] + len(aspect))
        data = replaced(data, entry, bytes(new))
    return data


def _absurd_sequence(data: bytes, rng: random.Random) -> bytes:
    """Bits of the H.264 parameter sets, where the decoder's own width, height and buffers stand."""
    at = data.find(b"avcC")
    if at < 0:
        return _flips_in_tables(data, rng)
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        out[at + 4 + rng.randrange(40)] = rng.choice((0, 0xFF, rng.getrandbits(8)))
    return bytes(out)


def _size_of_box(data: bytes, rng: random.Random) -> bytes:
    """A box of no length, of less than its own header, or of more than the file."""
    box = rng.choice(list(boxes(data)))
    out = bytearray(data)
    struct.pack_into(">I", out, box.start, rng.choice((0, 1, 2, 7, 8, 9, len(data) * 2, 0x7FFFFFFF, 0xFFFFFFFF)))
    return bytes(out)


def _huge_table(data: bytes, rng: random.Random) -> bytes:
    """Tables that state more rows than they have, or by one row more frames than there is memory for."""
    form = rng.choice(("count", "constant size", "one run"))
    out = data
    for name in (b"stsz", b"stts", b"stsc", b"stco", b"ctts", b"stss", b"trun"):
        box = next((box for box in boxes(out) if box.kind == name), None)
        if box is None or rng.random() < 0.3:
            continue
        count = rng.choice((10**6, 10**8, 0x0AAAAAA9, 0x7FFFFFFF, 0xFFFFFFFF))
        if form == "constant size" and name == b"stsz":
            out = replaced(out, box, struct.pack(">I4sIII", 20, name, 0, rng.choice((1, 16)), count))
        elif form == "one run" and name in {b"stts", b"ctts"}:
            out = replaced(out, box, struct.pack(">I4sIIII", 24, name, 0, 1, count, rng.choice((0, 1, 0xFFFFFFFF))))
        elif form == "one run" and name == b"stsc":
            out = replaced(out, box, struct.pack(">I4sIIIII", 28, name, 0, 1, 1, count, 1))
        elif form == "count":
            changed = bytearray(out)
            struct.pack_into(">I", changed, box.content + (8 if name == b"stsz" else 4), count)
            out = bytes(changed)
    return out


def _absurd_times(data: bytes, rng: random.Random) -> bytes:
    """Frames of no length, of hours, or that go back, and an edit list that begins or repeats where nothing is."""
    out = data
    box = next((box for box in boxes(out) if box.kind == b"stts"), None)
    if box is not None:
        rows = [
            (rng.randint(1, 8), rng.choice((0, 1, 512, 10**7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))) for _ in range(6)
        ]
        rows.append((10**4, 1))
        table = b"".join(struct.pack(">II", *row) for row in rows)
        out = replaced(out, box, struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(rows)) + table)
    box = next((box for box in boxes(out) if box.kind == b"elst"), None)
    if box is not None and rng.random() < 0.7:
        count = rng.choice((1, 3, 5000))
        extremes = (0, 1, -1, 0x7FFFFFFF, -0x80000000, rng.getrandbits(16))
        table = b"".join(struct.pack(">iii", rng.choice(extremes), rng.choice(extremes), 0x10000) for _ in range(count))
        out = replaced(out, box, struct.pack(">I4sII", 16 + len(table), b"elst", 0, count) + table)
    return out


def _offsets(data: bytes, rng: random.Random) -> bytes:
    """Chunks that all lie at one place, past the end, or inside the tables."""
    out = bytearray(data)
    for box in boxes(data):
        if box.kind == b"stco":
            to = rng.choice((0, len(data) - 1, len(data) * 3, 0xFFFFFFFF, box.start, None))
            for at in range(box.content + 8, box.end - 3, 4):
                struct.pack_into(">I", out, at, rng.randrange(len(data)) if to is None else to)
    return bytes(out)


def _nested(data: bytes, rng: random.Random) -> bytes:
    """Boxes in boxes, deeper than a stack may be."""
    depth = rng.choice((100, 3000, 40_000))
    kind = rng.choice((b"moov", b"udta", b"trak", b"meta", b"wave", b"ilst"))
    inner = b""
    parts = [struct.pack(">I4s", 8 * (depth - level), kind) for level in range(depth)]
    inner = b"".join(parts)
    moov = next((box for box in boxes(data) if box.kind == b"moov"), None)
    if moov is None:
        return inner + data
    return replaced(data, moov, data[moov.start : moov.end] + inner)


def _many_streams(data: bytes, rng: random.Random) -> bytes:
    """The same stream over and over."""
    track = next((box for box in boxes(data) if box.kind == b"trak"), None)
    if track is None:
        return data + data
    return replaced(data, track, data[track.start : track.end] * rng.choice((2, 30, 1500)))


_GENERIC: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flips": _flips,
    "bit flips in tables": _flips_in_tables,
    "truncated": _cut,
    "hole": _hole,
}
_MIXED: dict[str, Callable[[bytes, random.Random, bytes], bytes]] = {
    "spliced bytes": _splice,
    "spliced box": _spliced_box,
    "swapped streams": _other_streams,
}
_OF_MP4: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "absurd dimensions": _absurd_size,
    "absurd parameter sets": _absurd_sequence,
    "absurd timescale": _number(b"mdhd", 12),
    "absurd duration": _number(b"mvhd", 16),
    "absurd frame times": _absurd_times,
    "box size": _size_of_box,
    "huge table": _huge_table,
    "chunk offsets": _offsets,
    "nested boxes": _nested,
    "many streams": _many_streams,
}
KINDS = (*_GENERIC, *_MIXED, *_OF_MP4)


def mutate(kind: str, files: Mapping[str, bytes], name: str, seed: int) -> bytes:
    """The file ``name`` of ``files`` after one mutation of ``kind``; the same arguments give the same bytes.

    Kinds that know boxes take an MP4; of another container they change bytes anywhere. Kinds that mix take what they mix in
    from another of ``files``.
    """
    rng = random.Random(f"{kind}/{name}/{seed}")
    data = files[name]
    is_mp4 = data[4:8] == b"ftyp"
    if kind in _GENERIC:
        return _GENERIC[kind](data, rng)
    if kind in _MIXED:
        others = [other for key, other in sorted(files.items()) if key != name]
        with_boxes = [other for other in others if other[4:8] == b"ftyp"]
        if kind != "spliced bytes" and is_mp4 and with_boxes:
            return _MIXED[kind](data, rng, rng.choice(with_boxes))
        return _splice(data, rng, rng.choice(others))
    return _OF_MP4[kind](data, rng) if is_mp4 else _hole(_flips_in_tables(data, rng), rng)
