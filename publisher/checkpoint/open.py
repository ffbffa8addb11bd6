"""Open a checkpoint: headers, index and JSON files parsed once into a frozen `Checkpoint`; no tensor byte is read.

Opening succeeds on damaged checkpoints as long as something is there to look at; the damage is kept as flaws for the
rules to name. A place without any shard or config is refused.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.header import MAX_HEADER, ShardHeader, TensorRef, read_header
from publisher.checkpoint.modules import Module, module_table
from publisher.checkpoint.quantconfig import QuantConfig, parse_declaration
from publisher.errors import CheckpointError

INDEX = "model.safetensors.index.json"
DOCUMENTS = ("config.json", "hf_quant_config.json", INDEX)
MAX_SHARDS = 10_000
MAX_HEADERS = 512 << 20  # bytes of all headers; those of 500,000 tensors take about 80 MB
REQUESTS = 16  # under way at once for the headers of a repository
READ_AHEAD = 128 << 10  # bytes of a remote shard's start where no index tells how many tensors it holds
HEADER_BASE, HEADER_ENTRY = 1024, 100  # bytes of a header without entries, and of an entry beside its name


@dataclass(frozen=True, kw_only=True)  # no slots: sums over all tensors are kept once made
class Checkpoint:
    """A checkpoint, as far as headers and JSON files tell.

    Args:
        files: where its bytes come from.
        shards: header by shard file name, sorted.
        index: the parsed index, None when absent or unreadable.
        config: `config.json`, empty when absent or unreadable.
        hf_quant_config: `hf_quant_config.json`, None when absent or unreadable.
        document_flaws: file name to what is wrong with a JSON file that could not be read.
        declarations: every quantization declaration found, the one vLLM obeys first.
        tensors: every tensor by name; of a name in two shards the later shard wins, as in the loaders.
        modules: the module table, in name order.
    """

    files: Files
    shards: Mapping[str, ShardHeader]
    index: Mapping[str, Any] | None
    config: Mapping[str, Any]
    hf_quant_config: Mapping[str, Any] | None
    document_flaws: Mapping[str, str]
    declarations: tuple[QuantConfig, ...]
    tensors: Mapping[str, TensorRef]
    modules: Mapping[str, Module]

    @property
    def quant(self) -> QuantConfig | None:
        """The declaration vLLM and SGLang obey; None for an unquantized checkpoint."""
        return self.declarations[0] if self.declarations else None

    @functools.cached_property
    def weight_map(self) -> Mapping[str, str]:
        """The index's `weight_map` where it is one; empty otherwise."""
        value = (self.index or {}).get("weight_map")
        return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, Mapping) else {}

    @functools.cached_property
    def side_files(self) -> Mapping[str, int]:
        """Every file that is neither a shard nor the index, with its size."""
        return {name: size for name, size in self.files.sizes.items() if name not in self.shards and name != INDEX}

    @functools.cached_property
    def tensor_bytes(self) -> int:
        """Sum of the sizes of all tensors."""
        return sum(ref.size for ref in self.tensors.values())

    def read(self, ref: TensorRef) -> bytes:
        """All bytes of one tensor.

        Raises:
            CheckpointError: the shard is shorter than its header says.
        """
        return b"".join(self.chunks(ref, max(ref.size, 1)))

    def chunks(self, ref: TensorRef, step: int = 8 << 20) -> Iterator[bytes]:
        """The bytes of one tensor in pieces of `step` bytes, the last one shorter.

        Raises:
            CheckpointError: the shard is shorter than its header says.
        """
        for begin in range(ref.begin, ref.end, step):
            end = min(begin + step, ref.end)
            piece = self.files.read(ref.shard, begin, end)
            if len(piece) != end - begin:
                raise CheckpointError(
                    f"{ref.shard} ends inside the tensor {ref.name} (byte {begin + len(piece):,} of {ref.end:,}).",
                    hint="Copy or download the shard again.",
                )
            yield piece


@contextlib.contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection: a million objects come to stay, and walking them over and over would double the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def open_checkpoint(place: Path | Files, *, progress: Callable[[int, int], None] | None = None) -> Checkpoint:
    """Open a folder, or any other `Files`, as a checkpoint.

    Args:
        place: the folder that holds config.json and the shards.
        progress: called with (headers read, headers in all).

    Raises:
        CheckpointError: no such folder, or neither a shard nor a config.json in it.
    """
    files = LocalFiles(place) if isinstance(place, Path) else place
    names = sorted(name for name in files.sizes if name.endswith(".safetensors") and "/" not in name)
    if not names and "config.json" not in files.sizes:
        raise CheckpointError(
            f"{files.label} is no checkpoint: it holds neither config.json nor *.safetensors files.",
            hint=_elsewhere(files) or "Give the folder that holds config.json, or hf://org/name for a repository.",
        )
    if len(names) > MAX_SHARDS:
        raise CheckpointError(
            f"{files.label} holds {len(names):,} shards; at most {MAX_SHARDS:,} are read.",
            hint="Write the checkpoint again with larger shards; the Hub's page reads no more either.",
        )
    flaws: dict[str, str] = {}
    documents = {name: _document(files, name, flaws) for name in DOCUMENTS}
    shards = {header.shard: header for header in _headers(files, names, documents[INDEX], progress)}
    tensors = {ref.name: ref for header in shards.values() for ref in header.tensors}
    config = documents["config.json"] or {}
    return Checkpoint(
        files=files,
        shards=shards,
        index=documents[INDEX],
        config=config,
        hf_quant_config=documents["hf_quant_config.json"],
        document_flaws=flaws,
        declarations=tuple(_declarations(config, documents["hf_quant_config.json"])),
        tensors=tensors,
        modules=module_table(tensors.values()),
    )


def _elsewhere(files: Files) -> str:
    """Where a checkpoint lies one folder deeper; some exporters make a folder of their own."""
    found = next((name for name in files.sizes if name.endswith("/config.json")), None)
    return f"There is one in its folder {found.rpartition('/')[0][:200]}." if found else ""


def _document(files: Files, name: str, flaws: dict[str, str]) -> Mapping[str, Any] | None:
    if name not in files.sizes:
        return None
    try:
        if files.sizes[name] > jsonio.MAX_DOCUMENT:
            raise jsonio.DocumentError(f"{name} has {files.sizes[name]:,} bytes; no document of this kind does.")
        value = jsonio.loads_json(files.read(name), name)
    except (jsonio.DocumentError, CheckpointError) as error:
        flaws[name] = error.message
        return None
    if not isinstance(value, Mapping):
        flaws[name] = f"{name} holds a {type(value).__name__}, not an object."
        return None
    return value


def _headers(
    files: Files, names: list[str], index: Mapping[str, Any] | None, progress: Callable[[int, int], None] | None
) -> Iterator[ShardHeader]:
    """Headers in name order; the starts of remote shards are fetched several at a time, a little ahead."""
    if names and files.local(names[0]) is not None:
        yield from _counted((read_header(files, name) for name in names), len(names), progress)
        return
    with contextlib.closing(_starts(files, names, _expected(index))) as starts:
        yield from _counted(map(partial(read_header, files), names, starts), len(names), progress)


def _expected(index: Mapping[str, Any] | None) -> Mapping[str, int]:
    """About how many bytes a shard's header takes, by the index's names; rather more, so that one request is enough."""
    lengths: dict[str, int] = {}
    weight_map = (index or {}).get("weight_map")
    for name, shard in weight_map.items() if isinstance(weight_map, Mapping) else ():
        if isinstance(shard, str):
            lengths[shard] = lengths.get(shard, HEADER_BASE) + len(name) + HEADER_ENTRY
    return lengths


def _starts(files: Files, names: list[str], lengths: Mapping[str, int]) -> Generator[bytes, None, None]:
    """The first bytes of each shard, as many as its header is expected to take."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(max_workers=REQUESTS, thread_name_prefix="headers") as pool:
        try:
            for name in names:
                end = min(lengths.get(name, READ_AHEAD), MAX_HEADER + 8)
                waiting.append(pool.submit(files.read, name, 0, end))
                if len(waiting) >= 2 * REQUESTS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _counted(
    headers: Iterator[ShardHeader], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[ShardHeader]:
    size = 0
    for done, header in zip(itertools.count(1), headers, strict=False):
        size += header.length
        if size > MAX_HEADERS:
            raise CheckpointError(
                f"The headers of the first {done:,} of {total:,} shards take {size:,} bytes; "
                f"at most {MAX_HEADERS:,} are read.",
                hint="No checkpoint has headers of that size; fetch it again.",
            )
        if progress is not None:
            progress(done, total)
        yield header


def _declarations(config: Mapping[str, Any], file: Mapping[str, Any] | None) -> Iterator[QuantConfig]:
    """In vLLM's order (transformers_utils/config.py, model_loader/weight_utils.py): config.json first."""
    for place, holder in (
        ("quantization_config", config),
        ("text_config.quantization_config", config.get("text_config")),
        ("compression_config", config),
        ("vision_config.quantization_config", config.get("vision_config")),
    ):
        block = holder.get(place.rpartition(".")[2]) if isinstance(holder, Mapping) else None
        if isinstance(block, Mapping):
            yield parse_declaration(block, f"config.json: {place}")
    if file is not None:
        yield parse_declaration(file, "hf_quant_config.json")
