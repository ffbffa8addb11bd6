"""A whole model in memory, as transformers computes it: what calibration runs.

Plain checkpoints are loaded by transformers itself, in the dtype they name, onto the GPUs or into memory. Weights
stored in INT4 or FP8 are decoded first, as the quantizer decodes them. Experts are computed one after the other
(`eager`), so that each one's inputs can be seen.

Refused: a model that transformers has no class for, unless its own code may be run; a checkpoint that leaves a
parameter without a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from publisher.errors import CheckpointError, EngineError
from publisher.native.dequantized import DECLARATIONS, state_dict
from publisher.native.source import SourceTensors

CODE = "If you trust the code that the checkpoint brings along, say --trust-remote-code."


def load(folder: Path, tensors: SourceTensors, *, device: str, trust: bool = False) -> Any:
    """The model of a source folder, ready for inference.

    Args:
        folder: the source.
        tensors: its tensors.
        device: auto, cpu or cuda[:N].
        trust: run the checkpoint's own code, where transformers has no class for it.

    Raises:
        CheckpointError: transformers cannot load it, or a parameter gets no value.
        EngineError: the device is not there.
    """
    config = _config(folder, trust)
    place: dict[str, Any] = {"device_map": _device_map(device)} if _device_map(device) else {}
    try:
        kind = _kind(config, trust)
        if tensors.encoded:
            _undeclare(config)
            weights = state_dict(folder, dtype=torch.bfloat16)
            with torch.device("meta"):  # finds the class, without memory
                made: Any = type(kind.from_config(config, trust_remote_code=trust))
            model, info = made.from_pretrained(
                None, config=config, state_dict=weights, dtype=torch.bfloat16, output_loading_info=True, **place
            )
        else:
            model, info = kind.from_pretrained(
                str(folder),
                config=config,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=trust,
                output_loading_info=True,
                **_unpacked(config),
                **place,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _unloadable(folder, error, trust) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise CheckpointError(
            f"{folder} gives no value to {len(absent):,} parameters of {type(model).__name__}, first {absent[0]}.",
            hint="Validate the checkpoint; a model made up in part has no activations worth measuring.",
        )
    show_experts(model)
    return model.eval()


def show_experts(model: Any) -> None:
    """Compute experts one after the other, in models inside a model too, which transformers' own setter passes over."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "eager"


def load_tokenizer(folder: Path, *, trust: bool = False) -> Any:
    """The source's own tokenizer.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    except Exception as error:  # tokenizer files of strangers end in errors of many classes
        raise _unloadable(folder, error, trust) from error


def _config(folder: Path, trust: bool) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise _unloadable(folder, error, trust) from error


def _kind(config: Any, trust: bool) -> Any:
    """A text model's class where there is one, else that of a model of text and images."""
    automatic: Any = (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText)
    if trust and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return automatic[0]
    return next((kind for kind in automatic if type(config) in kind._model_mapping), automatic[0])


def _undeclare(config: Any) -> None:
    """The weights are decoded already; transformers must not look for packed ones."""
    for holder in (config, getattr(config, "text_config", None)):
        for key in DECLARATIONS:
            if holder is not None and hasattr(holder, key):
                delattr(holder, key)


def _unpacked(config: Any) -> dict[str, Any]:
    """Experts in MXFP4 blocks as matrices: a GPU's kernels for them would not show what is multiplied."""
    declared = getattr(config, "quantization_config", None)
    packed = isinstance(declared, Mapping) and declared.get("quant_method") == "mxfp4"
    return {"quantization_config": transformers.Mxfp4Config(dequantize=True)} if packed else {}


def _device_map(device: str) -> Any:
    count = torch.cuda.device_count()
    if device.startswith("cuda"):
        if int(device.partition(":")[2] or 0) >= count:
            raise EngineError(f"The device {device} is not there: torch sees {count} GPUs.")
        return {"": device}
    return "auto" if device == "auto" and count else None


def _unloadable(folder: Path, error: Exception, trust: bool) -> CheckpointError:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    hint = "" if trust else CODE
    return CheckpointError(
        f"transformers {transformers.__version__} cannot load {folder}: {said}",
        hint="Install it with `pip install 'fp4-publisher[calibrate]'`." if "accelerate" in said.lower() else hint,
    )
