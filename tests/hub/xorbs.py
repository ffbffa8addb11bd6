"""The two formats of Xet uploads, xorbs (chunks one after another) and shards (files as ranges of chunks), and a store.

A chunk is eight bytes of header (version, stored length in three bytes, scheme, length in three bytes; little-endian)
and its contents: stored, an LZ4 frame, or an LZ4 frame of the bytes regrouped by their position modulo four. A shard is
records of 48 bytes: a header, per file its terms (xorb, first and last chunk), verification hashes and sha256, then per
xorb its chunks; a record of 32 bytes 0xFF ends each half. Formats as in the documentation of Xet (xorb.md, shard.md).

Hashes of chunks, xorbs and files are keyed BLAKE3, which Python lacks: they are names here. What proves that contents
arrived is the sha256 of every file, computed anew from the decoded chunks.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

STORED, LZ4, GROUPED_LZ4 = range(3)
HEADER = 8
FOOTER = b"XETBLOB"
LONGEST_CHUNK = 128 * 1024
RECORD = 48
SHARD_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
BOOKEND = b"\xff" * 32
HAS_VERIFICATION, HAS_METADATA = 1 << 31, 1 << 30


class Malformed(Exception):
    """An upload that is not what its format says."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it was sent: its bytes with the header, and the length of its contents."""

    sent: bytes
    size: int

    @classmethod
    def stored(cls, data: bytes) -> Chunk:
        header = bytes(1) + len(data).to_bytes(3, "little") + bytes([STORED]) + len(data).to_bytes(3, "little")
        return cls(header + data, len(data))

    def data(self) -> bytes:
        """The contents, decoded."""
        scheme, body = self.sent[4], self.sent[HEADER:]
        data = body if scheme == STORED else unframed(body)
        data = regrouped(data) if scheme == GROUPED_LZ4 else data
        if len(data) != self.size:
            raise Malformed(f"a chunk holds {len(data)} bytes, its header says {self.size}")
        return data


class Xorb:
    """Chunks one after another; `offsets` are where each begins in what is served, and the end."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = list(chunks)

    @classmethod
    def parsed(cls, body: bytes) -> Xorb:
        """An upload taken apart, every chunk decoded once."""
        found, place = [], 0
        while place < len(body) and body[place : place + len(FOOTER)] != FOOTER:
            if len(body) < place + HEADER or body[place] != 0 or body[place + 4] > GROUPED_LZ4:
                raise Malformed(f"no chunk header at byte {place}")
            stored, size = (int.from_bytes(body[place + n : place + n + 3], "little") for n in (1, 5))
            end = place + HEADER + stored
            if end > len(body) or size > LONGEST_CHUNK:
                raise Malformed(f"the chunk at byte {place} is cut off or too long")
            found.append(Chunk(bytes(body[place:end]), size))
            found[-1].data()
            place = end
        if not found:
            raise Malformed("a xorb without chunks")
        return cls(found)

    @classmethod
    def of(cls, data: bytes) -> Xorb:
        """Contents cut into stored chunks: what the Hub holds of files that came by another way."""
        return cls([Chunk.stored(data[n : n + 65536]) for n in range(0, len(data), 65536)])

    @property
    def offsets(self) -> list[int]:
        return list(itertools.accumulate((len(chunk.sent) for chunk in self.chunks), initial=0))

    def served(self) -> bytes:
        return b"".join(chunk.sent for chunk in self.chunks)

    def corrupt(self, number: int) -> None:
        """One bit of a chunk's contents turns over, without breaking its encoding."""
        data = bytearray(self.chunks[number].data())
        data[len(data) // 2] ^= 1
        self.chunks[number] = Chunk.stored(bytes(data))


@dataclass(frozen=True, slots=True)
class Term:
    """Chunks `first` up to but not including `last` of a xorb, `size` bytes of a file."""

    xorb: str
    first: int
    last: int
    size: int


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file of a shard."""

    id: str
    terms: tuple[Term, ...]
    sha256: str


class Reconstructed:
    """A file's contents, decoded from its xorbs whenever a part is wanted."""

    def __init__(self, file: SentFile, xorbs: dict[str, Xorb]) -> None:
        self.file = file
        self._xorbs = xorbs

    def __len__(self) -> int:
        return sum(term.size for term in self.file.terms)

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(len(self))
        found, place = [], 0
        for chunk in self.chunks():
            if begin < place + chunk.size and place < end:
                found.append(chunk.data()[max(begin - place, 0) : end - place])
            place += chunk.size
        return b"".join(found)

    def chunks(self) -> Iterator[Chunk]:
        for term in self.file.terms:
            yield from self._xorbs[term.xorb].chunks[term.first : term.last]

    def corrupt(self) -> None:
        """One bit in the middle of the file turns over in its xorb."""
        term = self.file.terms[len(self.file.terms) // 2]
        self._xorbs[term.xorb].corrupt((term.first + term.last) // 2)


@dataclass(slots=True)
class Store:
    """Xorbs and files by their names."""

    xorbs: dict[str, Xorb] = field(default_factory=dict)
    files: dict[str, Reconstructed] = field(default_factory=dict)

    def add(self, file: SentFile) -> Reconstructed:
        """Register a file of a shard, once its terms are there and its contents have the sha256 it names."""
        for term in file.terms:
            xorb = self.xorbs.get(term.xorb)
            if xorb is None:
                raise Malformed(f"xorb {term.xorb} was not uploaded")
            if sum(chunk.size for chunk in xorb.chunks[term.first : term.last]) != term.size:
                raise Malformed(f"chunks {term.first} to {term.last} of xorb {term.xorb} are not {term.size} bytes")
        made = Reconstructed(file, self.xorbs)
        digest = hashlib.sha256()
        for chunk in made.chunks():
            digest.update(chunk.data())
        if digest.hexdigest() != file.sha256:
            raise Malformed(f"file {file.id} has sha256 {digest.hexdigest()}, its shard says {file.sha256}")
        self.files[file.id] = made
        return made


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks of one xorb that follow each other in a file: `first` up to `last`, `size` bytes when decoded."""

    xorb: str
    first: int
    last: int
    size: int


def runs(file: SentFile, xorbs: dict[str, Xorb], begin: int, end: int) -> tuple[int, list[Run]]:
    """The runs that hold bytes `begin` up to `end` of a file, and where in the first of them `begin` is."""
    found: list[Run] = []
    place = skipped = 0
    for term in file.terms:
        sizes = [chunk.size for chunk in xorbs[term.xorb].chunks[term.first : term.last]]
        starts = list(itertools.accumulate(sizes, initial=place))
        low = max(bisect.bisect_right(starts, begin) - 1, 0)
        high = min(bisect.bisect_left(starts, end), len(sizes))
        if low < high:
            skipped = skipped if found else max(begin - starts[low], 0)
            found.append(Run(term.xorb, term.first + low, term.first + high, sum(sizes[low:high])))
        place = starts[-1]
    return skipped, found


def shard_files(body: bytes) -> list[SentFile]:
    """The files of an uploaded shard."""
    if body[:32] != SHARD_TAG or int.from_bytes(body[32:40], "little") != 2:
        raise Malformed("no shard of version 2")
    found, place = [], RECORD
    while _record(body, place)[:32] != BOOKEND:
        header = _record(body, place)
        flags, count = struct.unpack_from("<II", header, 32)
        if not flags & HAS_METADATA:
            raise Malformed("a file without sha256")
        metadata = place + RECORD * (1 + count * (2 if flags & HAS_VERIFICATION else 1))
        digest = _hex(_record(body, metadata)[:32])
        terms = tuple(_term(_record(body, n)) for n in range(place + RECORD, place + RECORD * (1 + count), RECORD))
        found.append(SentFile(_hex(header[:32]), terms, digest))
        place = metadata + RECORD
    return found


def _record(body: bytes, place: int) -> bytes:
    if len(body) < place + RECORD:
        raise Malformed(f"the shard is cut off at byte {place}")
    return body[place : place + RECORD]


def _term(record: bytes) -> Term:
    _, size, first, last = struct.unpack_from("<IIII", record, 32)
    return Term(_hex(record[:32]), first, last, size)


def _hex(hashed: bytes) -> str:
    """A hash as Xet writes it: four little-endian words."""
    return "".join(hashed[n : n + 8][::-1].hex() for n in range(0, 32, 8))


def regrouped(data: bytes) -> bytes:
    """Bytes that were grouped by their position modulo four, in order again."""
    out, place = bytearray(len(data)), 0
    for n in range(4):
        count = (len(data) - n + 3) // 4
        out[n::4] = data[place : place + count]
        place += count
    return bytes(out)


def unframed(frame: bytes) -> bytes:
    """The contents of an LZ4 frame (blocks independent or linked; checksums are skipped, not checked)."""
    if frame[:4] != b"\x04\x22\x4d\x18":
        raise Malformed("no LZ4 frame")
    flags = frame[4]
    place = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    out = bytearray()
    while size := int.from_bytes(frame[place : place + 4], "little"):
        place += 4
        length = size & 0x7FFFFFFF
        block = frame[place : place + length]
        if len(block) < length:
            raise Malformed("the LZ4 frame is cut off")
        if size >> 31:
            out += block
        else:
            _decode(block, out)
        place += length + (4 if flags & 0x10 else 0)
    return bytes(out)


def _decode(block: bytes, out: bytearray) -> None:
    """One LZ4 block: literals, then a copy from what was decoded before, again and again."""
    place = 0
    try:
        while True:
            token = block[place]
            length, place = _length(block, place + 1, token >> 4)
            out += block[place : place + length]
            place += length
            if place >= len(block):
                return
            back = block[place] | block[place + 1] << 8
            length, place = _length(block, place + 2, token & 15)
            start = len(out) - back
            if back == 0 or start < 0:
                raise Malformed("an LZ4 block points before its beginning")
            length += 4
            copied = out[start : start + length]
            out += (copied * (length // len(copied) + 1))[:length]
    except IndexError as error:
        raise Malformed("an LZ4 block is cut off") from error


def _length(block: bytes, place: int, nibble: int) -> tuple[int, int]:
    if nibble < 15:
        return nibble, place
    while True:
        more = block[place]
        nibble += more
        place += 1
        if more != 255:
            return nibble, place
