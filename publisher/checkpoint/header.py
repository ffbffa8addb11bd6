"""A safetensors shard's header, read without trusting it.

The first eight bytes hold the header's length n (little-endian), then come n bytes of JSON, then the tensors' bytes
without holes (safetensors README, "Format"). A header that breaks the format becomes a `ShardHeader` with a problem,
not an exception: a validator must be able to look at it. At most `MAX_HEADER` bytes are read whatever it claims.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from publisher import jsonio
from publisher.checkpoint.files import Files

MAX_HEADER = 100_000_000  # safetensors src/tensor.rs: MAX_HEADER_SIZE
MAX_COUNT = 2**63  # a tensor of more elements has no file
MAX_FLAWS = 100  # flaws one header keeps; a header of 100 MB could hold millions
LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# Bits of one element (safetensors src/tensor.rs, Dtype::bitsize).
DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor as a header names it.

    Args:
        name: the tensor's full name.
        dtype: the safetensors dtype string, such as `BF16` or `F8_E4M3`.
        shape: sizes, outermost first; () for a scalar.
        shard: the file, relative to the checkpoint.
        begin: first byte, counted from the start of the file.
        end: one past the last byte, counted from the start of the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes stored."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """Number of elements stored; a packed byte counts as one."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What is wrong with a header: `kind` is length, json, duplicate, entry, pointer, empty or truncated."""

    kind: str
    message: str
    tensor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHeader:
    """A parsed header; `tensors` holds what could be read of it, `flaws` what could not.

    Args:
        shard: the file, relative to the checkpoint.
        file_size: bytes of the whole file.
        length: n, the header's length in bytes; 0 when it could not be read.
        metadata: the `__metadata__` entry as it stands, None when absent.
        tensors: in header order.
        flaws: empty for a good header.
    """

    shard: str
    file_size: int
    length: int = 0
    metadata: Any = None
    tensors: tuple[TensorRef, ...] = ()
    flaws: tuple[Flaw, ...] = ()

    @property
    def data_start(self) -> int:
        """File offset of the first tensor byte."""
        return 8 + self.length


@dataclass(slots=True)
class _Parse:
    shard: str
    size: int
    flaws: list[Flaw] = field(default_factory=list)

    def flaw(self, kind: str, message: str, tensor: str | None = None) -> None:
        if len(self.flaws) < MAX_FLAWS:
            self.flaws.append(Flaw(kind=kind, message=message, tensor=tensor))


def read_header(files: Files, shard: str, first: bytes | None = None) -> ShardHeader:
    """Read one shard's header; two reads, at most `MAX_HEADER` + 8 bytes.

    Args:
        files: where it lies.
        shard: the file.
        first: its first bytes, where they have been read.
    """
    size = files.sizes.get(shard, 0)
    parse = _Parse(shard, size)
    first = files.read(shard, 0, min(size, 1024)) if first is None else first
    length = _length(parse, first)
    if length is None:
        return ShardHeader(shard=shard, file_size=size, flaws=tuple(parse.flaws))
    raw = first[8 : 8 + length]
    if len(raw) < length:
        raw += files.read(shard, len(first), 8 + length)
    if len(raw) < length:  # the file was cut after its size was taken
        parse.flaw("truncated", f"the header claims {length:,} bytes, {len(raw):,} could be read")
        return ShardHeader(shard=shard, file_size=size, flaws=tuple(parse.flaws))
    metadata, tensors = _entries(parse, raw, 8 + length)
    return ShardHeader(
        shard=shard, file_size=size, length=length, metadata=metadata, tensors=tuple(tensors), flaws=tuple(parse.flaws)
    )


def _length(parse: _Parse, first: bytes) -> int | None:
    if not first:
        parse.flaw("empty", "the file is empty")
        return None
    if first.startswith(LFS_POINTER):
        parse.flaw("pointer", "the file is a Git LFS pointer, not the weights")
        return None
    if len(first) < 8:
        parse.flaw("truncated", f"the file has {len(first)} bytes; a header alone needs more")
        return None
    length = int.from_bytes(first[:8], "little")
    if not 2 <= length <= MAX_HEADER:
        parse.flaw("length", f"the header claims {length:,} bytes; 2 to {MAX_HEADER:,} are allowed")
        return None
    if 8 + length > parse.size:
        parse.flaw("truncated", f"the header claims {length:,} bytes, the file has {parse.size:,}")
        return None
    return length


def _entries(parse: _Parse, raw: bytes, start: int) -> tuple[Any, list[TensorRef]]:
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        duplicates.extend(jsonio.repeated(items))
        return dict(items)

    try:
        if not raw.startswith(b"{"):
            raise ValueError("does not begin with {")
        text = raw.decode("utf-8").rstrip(" ")
        header = json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
    except RecursionError:
        parse.flaw("json", "the header is no JSON object of tensors: it is nested too deep")
        return None, []
    except ValueError as error:
        parse.flaw("json", f"the header is no JSON object: {_problem(error)}")
        return None, []
    for key in duplicates[:20]:
        parse.flaw("duplicate", f"the header has the key {key[:200]!r} twice", key)
    metadata = header.pop("__metadata__", None)
    tensors = [ref for name, entry in header.items() if (ref := _entry(parse, name, entry, start)) is not None]
    return metadata, tensors


def _no_constant(literal: str) -> NoReturn:
    raise ValueError(f"it contains {literal}")


def _problem(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    return str(error)[:200]


def _entry(parse: _Parse, name: str, entry: Any, start: int) -> TensorRef | None:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        parse.flaw("entry", "the entry lacks dtype, shape or data_offsets", name)
        return None
    if not (isinstance(dtype, str) and isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)):
        parse.flaw("entry", f"dtype {str(dtype)[:40]!r} with shape {str(shape)[:80]} is malformed", name)
        return None
    if not (type(begin) is int and type(end) is int and 0 <= begin <= end < 2**63):
        parse.flaw("entry", f"data_offsets [{str(begin)[:30]}, {str(end)[:30]}] are malformed", name)
        return None
    if max(math.prod(shape), *shape, 0) >= MAX_COUNT:
        parse.flaw("entry", f"the shape {str(shape[:8])[:80]} counts more elements than a file can hold", name)
        return None
    return TensorRef(name, dtype, tuple(shape), parse.shard, start + begin, start + end)
