"""CN: what is stored besides the tensors' own bytes. Names, links, modes, sizes, and weights in other formats."""

from __future__ import annotations

import fnmatch
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping

from publisher import jsonio
from publisher.checkpoint.files import LocalFiles, shard_name
from publisher.checkpoint.open import INDEX, Checkpoint
from publisher.checkpoint.volume import predictable, predicted_bytes
from publisher.findings import ERROR, INFO, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Headers, Shard

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,511}")  # what names of models are made of
MAX_NAME = 512  # characters of a tensor's name; the longest of published models have about 120
INDEXED = Scope("model.safetensors.index.json", lambda headers: headers.checkpoint.index is not None)


def _limits() -> Mapping[str, int]:
    table: Mapping[str, int] = jsonio.data("hub/limits.json")
    return table


@rule("CN14", "over-storage-limit", severity=WARNING)
def over_storage_limit(headers: Headers) -> Iterator[Found]:
    """A file is larger, or a folder holds more files, than the Hub takes.

    Why: the Hub asks for files below 200 GB and refuses those of 500 GB; folders of more than 10,000 files and
    repositories of more than 100,000 are slow or refused.
    Fix: write smaller shards; pack what is many.
    Seen: huggingface.co/docs/hub/storage-limits; huggingface/huggingface_hub issue 2030.
    """
    limits, sizes = _limits(), headers.checkpoint.files.sizes
    for name, size in sizes.items():
        if size > limits["file_recommended"]:
            hard = size >= limits["file_hard"]
            told = "the Hub refuses files of 500 GB" if hard else "the Hub asks for files below 200 GB"
            message = f"{name} has {size / 1e9:,.0f} GB; {told}. Write smaller shards."
            yield Found(message, file=name, severity=ERROR if hard else WARNING)
    folders = Counter(name.rpartition("/")[0] for name in sizes)
    for folder, count in folders.items():
        if count > limits["folder_files"]:
            message = (
                f"{count:,} files lie in one folder; the Hub asks for {limits['folder_files']:,} at most. Pack them."
            )
            yield Found(message, file=folder or None)


@rule("CN15", "weights-in-other-formats", severity=WARNING, engines=("vllm", "sglang"))
def weights_in_other_formats(headers: Headers) -> Iterator[Found]:
    """Weights in another format, or a trainer's state, lie beside the shards.

    Why: some loaders take the first format they find, and a second copy doubles every download.
    Fix: remove them; a checkpoint is its safetensors shards.
    Seen: SGLang `model_loader/weight_utils.py` looks for *.bin and *.pt beside *.safetensors.
    """
    patterns = jsonio.data("sidefiles/weights.json")["patterns"]
    for name, size in headers.checkpoint.side_files.items():
        base = name.rpartition("/")[2].lower()
        if any(fnmatch.fnmatchcase(base, pattern) for pattern in patterns):
            yield Found(f"{name} ({size:,} bytes) holds weights or a trainer's state; remove it.", file=name)


@rule(
    "CN16",
    "unexpected-size",
    severity=WARNING,
    scope=Scope("geometry known for the model type", lambda headers: predictable(headers.checkpoint)),
)
def unexpected_size(headers: Headers) -> Iterator[Found]:
    """The tensors' bytes are not what the configuration's geometry gives for the formats stored, within 0.1 %.

    Why: layers or experts are missing, there twice, or not of the size the configuration says.
    Fix: compare the modules with the source, layer by layer.
    Seen: NVIDIA/Model-Optimizer issue 1173 (experts skipped: 46 GB where 16 were due).
    """
    wanted, stored = predicted_bytes(headers.checkpoint), headers.checkpoint.tensor_bytes
    if wanted and abs(stored - wanted) > wanted / 1000:
        message = (
            f"The tensors have {stored:,} bytes; config.json gives {wanted:,} for the formats stored "
            f"({100 * (stored / wanted - 1):+.2f} %). Look for missing or surplus layers."
        )
        yield Found(message)


@rule("CN17", "too-long-for-hub-page", severity=WARNING)
def too_long_for_hub_page(headers: Headers) -> Iterator[Found]:
    """A header, a dimension or config.json is larger than the Hub's page reads.

    Why: the page shows no sizes and no tensors then, and tools built on the same parser stop.
    Fix: write more and smaller shards; write exclusions as patterns.
    Seen: huggingface.js `parse-safetensors-metadata.ts`: 25 MB of header, 10 MB of config.json.
    """
    limits, checkpoint = _limits(), headers.checkpoint
    for shard, header in checkpoint.shards.items():
        if header.length > limits["page_header"]:
            message = (
                f"The header of {shard} has {header.length:,} bytes; the Hub's page reads {limits['page_header']:,}."
            )
            yield Found(f"{message} Write smaller shards.", file=shard)
    size = checkpoint.files.sizes.get("config.json", 0)
    if size > limits["page_config"]:
        message = f"config.json has {size:,} bytes; the Hub's page reads {limits['page_config']:,}. Write patterns."
        yield Found(message, file="config.json")


@rule("CN18", "index-leaves-folder", severity=ERROR, refuses=ENGINES, scope=INDEXED)
def index_leaves_folder(headers: Headers) -> Iterator[Found]:
    """The index names a file outside the folder, or something that is no shard.

    Why: a loader that joins the name to a path reads another file of the machine; others stop.
    Fix: rebuild the index from the shards' headers.
    Seen: huggingface.js refuses such names; path traversal is as old as archives.
    """
    raw = (headers.checkpoint.index or {}).get("weight_map")
    values = Counter(map(str, raw.values())) if isinstance(raw, Mapping) else Counter[str]()
    for name, count in values.items():
        if not shard_name(name):
            yield Found(
                f"The index puts {count:,} tensors into {name[:200]!r}, no shard of this folder; rebuild it.",
                file=INDEX,
            )


@rule("CN19", "link-or-unsafe-file", severity=ERROR)
def link_or_unsafe_file(headers: Headers) -> Iterator[Found]:
    """A link leads out of the folder or to nothing, a folder is a link, or a file name holds control characters.

    Why: such files are not published, and following them would publish somebody else's.
    Fix: put a copy of the file in its place; rename what has a strange name.
    Seen: folders assembled with `ln -s` from a download cache.
    """
    files = headers.checkpoint.files
    if not isinstance(files, LocalFiles):
        return
    for name in files.outside:
        yield Found(f"{name} is a link out of the folder, to a folder or to nothing; put a copy there.", file=name)
    for name in files.unsafe:
        yield Found(f"{name[:200]!r} is no name a repository takes; rename the file.", file=name[:200])


@rule("CN20", "consolidated-weights", severity=ERROR, engines=("vllm",))
def consolidated_weights(headers: Headers) -> Iterator[Found]:
    """A `consolidated*.safetensors` file lies in the folder.

    Why: vLLM takes its presence for Mistral's own format and loads these files instead of the shards.
    Fix: remove them.
    Seen: vLLM `model_loader/default_loader.py`, the choice of format `auto`.
    """
    for name in headers.checkpoint.files.sizes:
        if fnmatch.fnmatchcase(name, "consolidated*.safetensors"):
            yield Found(f"{name} makes vLLM read Mistral's format; remove it.", file=name)


@rule("CN21", "wrong-parameter-count", severity=WARNING, scope=INDEXED)
def wrong_parameter_count(headers: Headers) -> Iterator[Found]:
    """The index's `total_parameters` is neither the model's parameters nor the elements stored.

    Why: the Hub's page and catalogues show it. Packed bytes counted as one parameter each are information only.
    Fix: rebuild the index without it, or count two parameters in a packed byte and none in a scale.
    Seen: huggingface/hub-docs issue 2704 (89 B shown for 314 B); huggingface/huggingface_hub issue 4221.
    """
    metadata = (headers.checkpoint.index or {}).get("metadata")
    claimed = metadata.get("total_parameters") if isinstance(metadata, Mapping) else None
    if claimed is None:
        return
    parameters, stored, weights = _parameters(headers.checkpoint)
    if type(claimed) is not int or not any(_near(claimed, count) for count in (parameters, stored, weights)):
        message = f"The index says {str(claimed)[:40]} parameters; the tensors hold {parameters:,}. Rebuild it."
        yield Found(message, file=INDEX)
    elif not _near(claimed, parameters):
        message = (
            f"The index counts {claimed:,} parameters with packed bytes as one each; the model has {parameters:,}."
        )
        yield Found(f"{message} Rebuild it.", file=INDEX, severity=INFO)


def _parameters(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Parameters of the model, elements stored, and elements without scales."""
    parameters = stored = weights = 0
    for module in checkpoint.modules.values():
        for suffix, ref in module.tensors.items():
            stored += ref.elements
            if "scale" in suffix or suffix == "weight_shape":
                continue
            weights += ref.elements
            parameters += ref.elements * {"U8": 2, "I32": 8}.get(ref.dtype, 1)
    return parameters, stored, weights


def _near(one: int, other: int) -> bool:
    return abs(one - other) * 100 <= max(other, 1)


@rule("CN22", "hostile-tensor-name", severity=ERROR)
def hostile_tensor_name(shard: Shard) -> Iterator[Found]:
    """A tensor's name is empty, holds control characters, markup or `..`, or is longer than 512 characters.

    Why: no model has such names; pages, logs and terminals that print them can be made to do something else.
    Fix: do not use this file; fetch the checkpoint from its publisher.
    Seen: names are text of a stranger, which safetensors does not restrict.
    """
    for ref in shard.header.tensors:
        problem = None if _PLAIN.fullmatch(ref.name) and ".." not in ref.name else _problem(ref.name)
        if problem is not None:
            yield Found(
                f"A tensor's name {problem}: {ref.name[:80]!r}. Fetch the file again.", file=ref.shard, tensor=ref.name
            )


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name):,} characters"
    if not name.isprintable():
        return "holds control characters"
    if ".." in name or "\\" in name or name.startswith("/"):
        return "looks like a path"
    return "holds markup" if "<" in name or ">" in name else None


@rule("CN23", "private-shard", severity=INFO)
def private_shard(shard: Shard) -> Iterator[Found]:
    """A shard can be read by its owner only, though config.json beside it can be read by all.

    Why: a server in a container, or of another user, stops with "permission denied" after it read the configuration.
    Fix: give the shards the mode of config.json: chmod 644.
    Seen: safetensors 0.8 writes every file with mode 0600.
    """
    path, config = (shard.checkpoint.files.local(name) for name in (shard.header.shard, "config.json"))
    if path is None or config is None:
        return
    try:
        mode, open_to = stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(config.stat().st_mode)
    except OSError:
        return
    if open_to & stat.S_IROTH and not mode & (stat.S_IRGRP | stat.S_IROTH):
        message = f"{shard.header.shard} has mode {mode:04o}, config.json {open_to:04o}; run chmod 644 on the shards."
        yield Found(message, file=shard.header.shard)
