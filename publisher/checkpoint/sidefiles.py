"""What travels with the weights: every file of the source that is no weight, byte for byte, and its own config.json.

Engines that save a model again lose licences, custom code and chat templates and rewrite tokenizers and rope settings;
so whatever the engine wrote, these files come from the source. Of config.json only the quantization block is set, at
top level and nowhere else; every other key keeps its value and its place.
Refused: links that lead out of the source, a source without config.json.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.checkpoint.disk import disk_errors
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.writer import PARTIAL
from publisher.errors import CheckpointError

CONFIG, HF_QUANT_CONFIG = "config.json", "hf_quant_config.json"
BLOCKS = ("quantization_config", "compression_config")  # where engines look for a declaration

# Weights, in whatever format and folder, and what describes their files.
_WEIGHTS = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.gguf",
    "*.ggml", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite", "*.npz", "consolidated*",
)  # fmt: skip
_OURS = ("readme.md", CONFIG, HF_QUANT_CONFIG)  # written by us, compared in lower case, at the root only
_GGUF = b"GGUF"


def carried(source: LocalFiles) -> list[str]:
    """The files of a source that are carried over byte for byte, sorted; config.json is not among them.

    Raises:
        CheckpointError: a link leads out of the source folder.
    """
    outside = [name for name in source.outside if _wanted(name)]
    if outside:
        raise CheckpointError(
            f"{source.label}: {outside[0]} is a link that leads out of the folder or nowhere "
            f"({len(outside)} such links).",
            hint="Put a copy of the file in its place.",
        )
    return travels(source)


def travels(files: Files) -> list[str]:
    """The files that are carried over, wherever they lie; links are `carried`'s to refuse."""
    return [name for name in files.sizes if _wanted(name) and not _is_gguf(files, name)]


def _wanted(name: str) -> bool:
    lower = name.lower()
    if any(part.startswith(".") for part in name.split("/")) or lower.endswith(PARTIAL):
        return False
    base = lower.rpartition("/")[2]
    return lower not in _OURS and not any(fnmatch.fnmatchcase(base, pattern) for pattern in _WEIGHTS)


def _is_gguf(source: Files, name: str) -> bool:
    """Whether a tokenizer file is a whole model: transformers saves the GGUF it read as tokenizer.model."""
    return name.endswith(".model") and source.read(name, 0, 4) == _GGUF


def config_with(
    config: Mapping[str, Any], quantization_config: Mapping[str, Any], sparsity: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The source's configuration with one quantization block, at top level; keys and their order are kept otherwise.

    Args:
        config: the source's.
        quantization_config: the block.
        sparsity: what is said of pruning, beside the block; None says nothing new.
    """
    cleaned: dict[str, Any] = _without_blocks(config)
    stated = {} if sparsity is None else {"sparsity": dict(sparsity)}
    return {**cleaned, **stated, "quantization_config": dict(quantization_config)}


def _without_blocks(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_blocks(item) for key, item in value.items() if key not in BLOCKS}
    return [_without_blocks(item) for item in value] if isinstance(value, list) else value


def inspect(source_dir: Path) -> tuple[LocalFiles, Mapping[str, Any], list[str]]:
    """The source's files, its configuration and the files to carry; what `restore` refuses, before hours of work.

    Raises:
        CheckpointError: no config.json, one that is no object, or a link that leads out of the source.
        DocumentError: a config.json that is no JSON.
    """
    source = LocalFiles(source_dir)
    if CONFIG not in source.sizes:
        raise CheckpointError(f"{source.label} has no {CONFIG}.", hint="Copy or download the source again.")
    config = jsonio.loads_json(source.read(CONFIG), f"{source.label}/{CONFIG}")
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{source.label}/{CONFIG} holds a {type(config).__name__}, not an object.")
    return source, config, carried(source)


def restore(
    source_dir: Path,
    destination: Path,
    quantization_config: Mapping[str, Any],
    hf_quant_config: Mapping[str, Any] | None,
    *,
    sparsity: Mapping[str, Any] | None = None,
) -> list[str]:
    """Put a source's side files and configuration into a quantized checkpoint, over whatever an engine wrote there.

    Args:
        source_dir: the source checkpoint.
        destination: the folder of the quantized one; exists.
        quantization_config: the block for config.json.
        hf_quant_config: the content of hf_quant_config.json; None leaves (and removes) no such file.
        sparsity: what config.json says of pruning beside its block.

    Returns:
        The names written, sorted.

    Raises:
        CheckpointError: as `inspect`.
        EngineError: the disk is full.
    """
    source, config, names = inspect(source_dir)
    with disk_errors(destination, sum(source.sizes[name] for name in names)):
        for name in names:
            _copy(source.root / name, destination / name)
        _write(destination / CONFIG, config_with(config, quantization_config, sparsity))
        (destination / HF_QUANT_CONFIG).unlink(missing_ok=True)
        if hf_quant_config is not None:
            _write(destination / HF_QUANT_CONFIG, hf_quant_config)
    return sorted([*names, CONFIG] + ([HF_QUANT_CONFIG] if hf_quant_config is not None else []))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}{PARTIAL}")
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        partial.chmod(0o644)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """JSON as people read it in repositories: two spaces, keys in their own order."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    jsonio.write_atomic(path, text)
