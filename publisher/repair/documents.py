"""Repairs of the JSON documents and side files: each looks at the checkpoint and adds to the draft what it would write.

The tensors decide. An index is rebuilt from the headers, an exclude list gets the plain layers it does not cover, and
where the two declarations of a modelopt checkpoint differ, hf_quant_config.json is written after config.json, which
vLLM and SGLang obey. Refused: an index over shards that are missing or cannot be read, because it would hide the loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import INDEX, Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig, parse_declaration
from publisher.checkpoint.sidefiles import CONFIG, HF_QUANT_CONFIG, config_with, travels
from publisher.errors import PublisherError
from publisher.matching import DIALECTS
from publisher.plan.declaration import exclude_list
from publisher.repair.change import Draft, differing, listing
from publisher.subjects.modules import stack_of

PLAIN = frozenset({"BF16", "F16", "F32"})
LIST_KEYS = {"modelopt": ("ignore", "exclude_modules"), "quark": ("exclude",), "compressed-tensors": ("ignore",)}
PIECE = 8 << 20


def _document(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


# --- index ---------------------------------------------------------------------------------------------------------


def index(checkpoint: Checkpoint, _source: Checkpoint | None, draft: Draft) -> None:
    """Rebuild model.safetensors.index.json from the shards' headers, `total_size` included."""
    shards = checkpoint.shards
    if len(shards) < 2 and INDEX not in checkpoint.files.sizes:
        return
    real = {ref.name: shard for shard, header in shards.items() for ref in header.tensors}
    total = sum(ref.size for header in shards.values() for ref in header.tensors)
    metadata = (checkpoint.index or {}).get("metadata")
    old = dict(metadata) if isinstance(metadata, Mapping) else {}
    listed = checkpoint.weight_map
    if listed == real and old.get("total_size") == total:
        return
    problem = _unsafe(checkpoint, len(real))
    if problem is not None:
        draft.refuse("index", INDEX, problem)
        return
    missing = [name for name in real if name not in listed]
    ghosts = [name for name in listed if name not in real]
    moved = [name for name in real if name in listed and listed[name] != real[name]]
    said = [
        f"{len(names):,} {what}" for names, what in ((missing, "added"), (ghosts, "dropped"), (moved, "moved")) if names
    ]
    if old.get("total_size") != total:
        said.append(f"total_size {total:,} instead of {old.get('total_size')}")
    new = {"metadata": {**old, "total_size": total}, "weight_map": dict(sorted(real.items()))}
    draft.documents[INDEX] = _document(new)
    draft.say("index", INDEX, f"The index is rebuilt from {len(shards):,} headers: {', '.join(said)}.")


def _unsafe(checkpoint: Checkpoint, names: int) -> str | None:
    """Why an index must not be rebuilt; None when it may."""
    lost = sorted(set(checkpoint.weight_map.values()) - set(checkpoint.shards))
    if lost:
        return f"{len(lost):,} shards of the index are missing ({listing(lost)}); fetch them first."
    broken = sorted(shard for shard, header in checkpoint.shards.items() if header.flaws)
    if broken:
        return f"{len(broken):,} shards have a broken header ({listing(broken)}); fetch them first."
    if sum(len(header.tensors) for header in checkpoint.shards.values()) != names:
        return "The same tensor stands in two shards; remove the stale shard first."
    return None


# --- config.json and hf_quant_config.json --------------------------------------------------------------------------


def config(checkpoint: Checkpoint, source: Checkpoint | None, draft: Draft) -> None:
    """Take every key of config.json that quantization does not own from the source."""
    if source is None or not source.config:
        return
    mine = _config(checkpoint, draft)
    block = mine.get("quantization_config")
    stated = mine.get("sparsity") if isinstance(mine.get("sparsity"), Mapping) else None  # quantization's own key
    wanted = config_with(source.config, block, stated) if isinstance(block, Mapping) else dict(source.config)
    changed = [key for key in differing(mine, wanted) if not key.startswith("quantization_config")]
    if changed:
        draft.documents[CONFIG] = _document(wanted)
        draft.say("config", CONFIG, f"{len(changed):,} keys get the source's value: {listing(changed)}.")


def declaration(checkpoint: Checkpoint, _source: Checkpoint | None, draft: Draft) -> None:
    """One block in config.json, at top level, and for modelopt the same in hf_quant_config.json."""
    mine = _config(checkpoint, draft)
    block, file = mine.get("quantization_config"), checkpoint.hf_quant_config
    if not isinstance(block, Mapping) and file is not None:
        block = _block_of(file)
        if block is None:
            draft.refuse(
                "declaration", CONFIG, f"{HF_QUANT_CONFIG} declares what only its exporter can spell for config.json."
            )
            return
        draft.say("declaration", CONFIG, f"The block is written after {HF_QUANT_CONFIG}: {block['quant_algo']}.")
    if not isinstance(block, Mapping):
        return
    wanted = config_with(mine, block)
    if wanted != mine:
        draft.documents[CONFIG] = _document(wanted)
        if isinstance(mine.get("quantization_config"), Mapping):
            draft.say("declaration", CONFIG, "Quantization blocks beside the one at top level are removed.")
    _file(checkpoint, parse_declaration(block, CONFIG), draft)


def _config(checkpoint: Checkpoint, draft: Draft) -> dict[str, Any]:
    """config.json as the repairs before left it."""
    done = draft.documents.get(CONFIG)
    return dict(jsonio.loads_json(done, CONFIG)) if done is not None else dict(checkpoint.config)


def _block_of(file: Mapping[str, Any]) -> dict[str, Any] | None:
    """The block modelopt's `convert_hf_quant_config_format` writes for plain NVFP4 and W4A16_NVFP4; None for others."""
    declared = parse_declaration(file, HF_QUANT_CONFIG)
    algo = (declared.algo or "").upper()
    if declared.dialect != "modelopt" or algo not in ("NVFP4", "W4A16_NVFP4"):
        return None
    numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": declared.group_size or 16}
    group: dict[str, Any] = {"weights": dict(numbers), "targets": ["Linear"]}
    if algo == "NVFP4":
        group = {"input_activations": dict(numbers), **group}
    block: dict[str, Any] = {"config_groups": {"group_0": group}, "ignore": list(declared.ignore), "quant_algo": algo}
    if declared.kv_cache == "fp8":
        block["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    return {**block, "producer": file.get("producer", {"name": "modelopt"}), "quant_method": "modelopt"}


def _file(checkpoint: Checkpoint, declared: QuantConfig, draft: Draft, repair: str = "declaration") -> None:
    """hf_quant_config.json, so that TensorRT-LLM reads what the others read; absent for other producers."""
    present = HF_QUANT_CONFIG in checkpoint.files.sizes
    if declared.dialect != "modelopt":
        if present:
            draft.removed.add(HF_QUANT_CONFIG)
            draft.say("declaration", HF_QUANT_CONFIG, "Removed: TensorRT-LLM would obey it before config.json.")
        return
    old = checkpoint.hf_quant_config or {}
    nested = old.get("quantization")
    body = dict(nested) if isinstance(nested, Mapping) else {}
    wanted: dict[str, Any] = {
        "quant_algo": declared.algo,
        "kv_cache_quant_algo": declared.kv_cache.upper() if declared.kv_cache else None,
        "group_size": declared.group_size,
        "exclude_modules": list(declared.ignore),
    }
    layers = declared.raw.get("quantized_layers")
    if isinstance(layers, Mapping):
        wanted["quantized_layers"] = dict(layers)
        wanted.pop("group_size")
    if same_declaration(body, wanted) and present:
        return
    producer = declared.raw.get("producer") or old.get("producer") or {"name": "modelopt"}
    new = {**old, "producer": producer, "quantization": {**body, **wanted}}
    changed = list(differing(body, {**body, **wanted})) if present else ["the whole file"]
    draft.documents[HF_QUANT_CONFIG] = _document(new)
    draft.say(repair, HF_QUANT_CONFIG, f"Written after {CONFIG}: {listing(changed)}.")


def same_declaration(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two nested declarations say the same; the exclude list is a set, an algorithm's case is free."""

    def facts(body: Mapping[str, Any]) -> tuple[Any, ...]:
        names = body.get("exclude_modules")
        return (
            str(body.get("quant_algo")).upper(),
            body.get("kv_cache_quant_algo"),
            body.get("group_size"),
            sorted(map(str, names)) if isinstance(names, list) else names,
            body.get("quantized_layers"),
        )

    return facts(mine) == facts(theirs)


def ignore(checkpoint: Checkpoint, _source: Checkpoint | None, draft: Draft) -> None:
    """Add plain linear layers to the exclude list that it does not cover as its producer reads it."""
    mine = _config(checkpoint, draft)
    block = mine.get("quantization_config")
    if not isinstance(block, Mapping):
        return
    declared = parse_declaration(block, CONFIG)
    keys = LIST_KEYS.get(declared.dialect)
    if keys is None or declared.format not in ("nvfp4", "mxfp4"):
        return
    packed = sorted(name for name, module in checkpoint.modules.items() if module.quantized or stack_of(module))
    plain = sorted(name for name, module in checkpoint.modules.items() if _linear(module))
    try:
        excluded = DIALECTS[declared.dialect](declared.ignore, [*plain, *packed])
    except PublisherError as error:
        draft.refuse("ignore", CONFIG, f"The exclude list cannot be read: {error.message}")
        return
    wrong = [name for name in packed if name in excluded]
    if wrong:
        draft.refuse(
            "ignore", CONFIG, f"The list excludes {len(wrong):,} packed layers ({listing(wrong)}); correct it by hand."
        )
    missing = [name for name in plain if name not in excluded]
    if all(checkpoint.modules[name].role == "router" for name in missing):  # which no engine builds quantized
        return
    layout = "modelopt" if declared.dialect == "modelopt" else "quark"
    added = [entry for entry in exclude_list(layout, packed, missing) if entry not in declared.ignore]
    key = next((key for key in keys if key in block), keys[0])
    new = {**block, key: [*declared.ignore, *added]}
    draft.documents[CONFIG] = _document({**mine, "quantization_config": new})
    draft.say("ignore", CONFIG, f"{len(added):,} entries cover {len(missing):,} plain layers: {listing(added)}.")
    _file(checkpoint, parse_declaration(new, CONFIG), draft, "ignore")


def _linear(module: Module) -> bool:
    weight = module.weight
    if weight is None or weight.dtype not in PLAIN or len(weight.shape) != 2:
        return False
    return module.role not in ("norm", "embedding", "other")


# --- side files ----------------------------------------------------------------------------------------------------


def sidefiles(checkpoint: Checkpoint, source: Checkpoint | None, draft: Draft) -> None:
    """Restore licence, tokenizer, templates and code from the source, byte for byte."""
    if source is None:
        return
    for name in travels(source.files):
        size = checkpoint.files.sizes.get(name)
        if size == source.files.sizes[name] and _same(checkpoint, source, name):
            continue
        draft.copies[name] = source.files
        what = "missing" if size is None else "not the source's"
        draft.say("side-files", name, f"{name} is {what}; its {source.files.sizes[name]:,} bytes are copied.")


def _same(checkpoint: Checkpoint, source: Checkpoint, name: str) -> bool:
    size = source.files.sizes[name]
    return all(
        checkpoint.files.read(name, at, at + PIECE) == source.files.read(name, at, at + PIECE)
        for at in range(0, size, PIECE)
    )
