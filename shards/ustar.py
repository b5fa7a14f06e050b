"""The bytes of a tar member that carries nothing but its name and size (POSIX ustar).

Written out here rather than through ``tarfile``, whose header bytes have changed between Python versions: a shard must
be the same bytes wherever it is made, and ``shards.verify`` compares each header with the one that belongs there.
"""

import struct

BLOCK = 512
END = bytes(2 * BLOCK)
"""The two empty blocks that close an archive."""

# name, mode, uid, gid, size, mtime, checksum, type, link name, magic, version, user, group, devices, prefix, unused
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2s 32s 32s 8s 8s 155s 12s")
_MAX_SIZE = 8**11 - 1


def header(name: str, nbytes: int) -> bytes:
    """The 512-byte header of a regular file: mode 0644, owner 0, time 0.

    Raises ``ValueError`` for a name over 100 bytes or a size of 8 GiB or more, which ustar cannot say.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or not 0 <= nbytes <= _MAX_SIZE:
        raise ValueError(f"a ustar header cannot hold the name {name!r} with {nbytes} bytes")

    def pack(checksum: bytes) -> bytes:
        return _HEADER.pack(
            encoded,
            b"0000644",
            b"0000000",
            b"0000000",
            b"%011o" % nbytes,
            b"%011o" % 0,
            checksum,
            b"0",
            b"",
            b"ustar",
            b"00",
            b"",
            b"",
            b"",
            b"",
            b"",
            b"",
        )

    # The checksum is the sum of the header's bytes with its own field counted as spaces.
    return pack(b"%06o\0 " % sum(pack(b" " * 8)))


def padding(nbytes: int) -> bytes:
    """The zeros between a member's data and the next block boundary."""
    return bytes(-nbytes % BLOCK)
