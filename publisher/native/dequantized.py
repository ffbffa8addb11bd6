"""A checkpoint as a transformers model, every packed weight replaced by the values it stands for.

Sources and quantized checkpoints take the same way in, so that a comparison of two models is one of their weights.
Which tensors belong to a packed weight, and which way its global scale goes, is read from `formats.LAYOUTS` by the
declared dialect and format. Scales of activations and of the KV cache are left out: the model computes at full
precision.

Refused: custom code, classes transformers does not know, packed weights of other formats, and checkpoints that leave a
parameter of the model without a value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.errors import CheckpointError, PublisherError
from publisher.formats import LAYOUTS, Layout, floats, mxfp4, nvfp4
from publisher.native.source import TORCH_DTYPES, SourceTensors

BUFFERS = ("I64", "BOOL")  # position ids and masks that old exports stored; models make their own
DECLARATIONS = ("quantization_config", "compression_config")
AGAIN = "Quantize again, or validate the checkpoint."
WITHOUT = "Leave `evaluation` out of the recipe to publish without a perplexity."


def load_model(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """The folder's causal language model, ready for inference.

    Args:
        folder: a source or a quantized checkpoint.
        dtype: what weights and activations are computed in.
        device: where.

    Raises:
        CheckpointError: damaged, packed in a way not known here, or not all of the model.
        PublisherError: transformers has no class of its own for it.
    """
    config = _config(folder)
    weights = state_dict(folder, dtype=dtype)
    try:
        with torch.device("meta"):  # finds the class; without memory, and without a name to look up anywhere
            kind: Any = type(transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            ignore_mismatched_sizes=True,  # named below, with the missing ones
            output_loading_info=True,
        )
    except (ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _unloadable(folder, error) from error
    absent = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if absent:
        raise CheckpointError(
            f"{folder} gives no value, or one of another shape, to {len(absent)} parameters, first {absent[0]}.",
            hint="Validate the checkpoint against its source.",
        )
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, without running code from it.

    Raises:
        PublisherError: there is none that transformers can load.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizer files of strangers end in errors of many classes, plain Exception too
        raise _unloadable(folder, error) from error


def state_dict(folder: Path, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every weight by name: packed ones dequantized to `dtype`, the others as stored.

    Raises:
        CheckpointError: damaged, or packed in a way not known here.
    """
    tensors, checkpoint = SourceTensors(folder), open_checkpoint(folder)
    modules = checkpoint.modules.values()
    packed = [m for m in modules if m.quantized and f"{m.name}.weight" not in tensors.encoded]
    layout = _layout(checkpoint) if packed else None
    found: dict[str, Tensor] = {}
    done: set[str] = set()
    for module in packed:
        if layout is not None:
            found[f"{module.name}.weight"] = torch.from_numpy(_dequantize(checkpoint, module, layout)).to(dtype)
            done |= {ref.name for suffix, ref in module.tensors.items() if layout.by_suffix(suffix)}
    for name, ref in tensors.refs.items():
        if name not in done and ref.dtype not in BUFFERS:
            found[name] = tensors.load(_plain(ref))
    return found


def _plain(ref: TensorRef) -> TensorRef:
    if ref.dtype not in TORCH_DTYPES:
        raise CheckpointError(
            f"{ref.name} is stored as {ref.dtype}, which is not evaluated here ({', '.join(TORCH_DTYPES)}).",
            hint=WITHOUT,
        )
    return ref


def _layout(checkpoint: Checkpoint) -> Layout:
    quant = checkpoint.quant
    layout = LAYOUTS.get((quant.dialect, quant.format or "")) if quant else None
    if layout is None:
        said = f"{quant.origin} declares {quant.dialect} {quant.format}" if quant else "nothing declares how"
        known = ", ".join(sorted({f"{dialect} {form}" for dialect, form in LAYOUTS}))
        raise CheckpointError(
            f"{checkpoint.files.label} holds packed weights, and {said}; what is read here is {known}.", hint=WITHOUT
        )
    return layout


def _dequantize(checkpoint: Checkpoint, module: Module, layout: Layout) -> np.ndarray[Any, np.dtype[np.float32]]:
    parts: dict[str, TensorRef] = {}
    for role in layout.roles:
        ref = module.tensors.get(role.suffix)
        if ref is not None and ref.dtype == role.dtype:
            parts[role.role] = ref
        elif role.required:
            has = f"is {ref.dtype}" if ref else "is missing"
            raise CheckpointError(
                f"{module.name}.{role.suffix} {has}; {layout.dialect} {layout.format} needs {role.dtype}.",
                hint=AGAIN,
            )
    payload, scales = (_bytes(checkpoint, parts[role]) for role in ("payload", "block_scale"))
    if layout.direction is None:
        return mxfp4.dequantize(payload, scales)
    ref = parts["global_scale"]
    scalar = floats.decode(checkpoint.read(ref), ref.dtype, ref.shape)
    if scalar.size != 1:
        raise CheckpointError(f"{ref.name} holds {scalar.size} numbers; a global scale is one.", hint=AGAIN)
    return nvfp4.dequantize(payload, scales, scalar.reshape(-1)[0], direction=layout.direction)


def _bytes(checkpoint: Checkpoint, ref: TensorRef) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(checkpoint.read(ref), dtype=np.uint8).reshape(ref.shape)


def _config(folder: Path) -> Any:
    """The model's configuration without its quantization, which is undone here and not by transformers."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise _unloadable(folder, error) from error
    for holder in (config, getattr(config, "text_config", None)):
        for key in DECLARATIONS:
            if holder is not None and hasattr(holder, key):
                delattr(holder, key)
    return config


def _unloadable(folder: Path, error: Exception) -> PublisherError:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return PublisherError(f"transformers {transformers.__version__} cannot load {folder}: {said}", hint=WITHOUT)
