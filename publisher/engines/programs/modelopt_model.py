"""What only torch, transformers and modelopt 0.47 can do: load the model, quantize exactly the named modules, export.

modelopt takes an ordered list of rules over quantizer names, later ones winning. Ours disables everything, then
enables the quantizers of the named modules one by one with the numerics of modelopt's own NVFP4 preset, so that no
pattern of a preset can quantize more, or less, than the plan says. Calibration is `max`: it runs the model as it is and
needs no GPU. Code that a checkpoint brings along is never run.
"""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
import transformers
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.export.quant_aware_conversion import build_reverse_name_mapper

from publisher.errors import CheckpointError, EngineError
from publisher.native.events import Progress

STAGE = "quantize"
_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(.+)$")


def load(source: Path, device: str) -> Any:
    """The model in the dtype its configuration names, on the GPUs, one of them, or the CPU.

    Raises:
        CheckpointError: transformers cannot load it (unknown architecture, custom code, damaged files).
    """
    place: dict[str, Any] = {}
    if device.startswith("cuda"):
        place["device_map"] = {"": device}
    elif device in ("auto", "all") and torch.cuda.is_available():
        place["device_map"] = "auto"
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source), dtype="auto", local_files_only=True, trust_remote_code=False, **place
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot load {source}: {_short(error)}",
            hint="The engine native needs no model class; custom code in a checkpoint is not run.",
        ) from error
    if not getattr(model.config, "architectures", None):
        model.config.architectures = [type(model).__name__]  # modelopt's exporter fails without
    model.eval()
    return model


def load_tokenizer(source: Path) -> Any:
    """The source's own tokenizer.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"The tokenizer in {source} cannot be loaded: {_short(error)}",
            hint="Calibrated activations need it; `activations: none` does not.",
        ) from error


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


# --- quantizing ----------------------------------------------------------------------------------------------------


def rules(model: Any, quantize: Sequence[str], *, activations: bool, kv_cache: str) -> list[dict[str, Any]]:
    """modelopt's rule list that enables the quantizers of `quantize` (names as in the checkpoint) and nothing else.

    Raises:
        CheckpointError: a module that the loaded model does not have, or experts that are not all or none quantized.
    """
    numerics = _preset_numerics(mtq.NVFP4_DEFAULT_CFG)
    found: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for pattern in _targets(model, quantize):
        found.append({"quantizer_name": f"{pattern}weight_quantizer*", "cfg": numerics})
        if activations:
            found.append({"quantizer_name": f"{pattern}input_quantizer", "cfg": numerics})
    if kv_cache != "none":
        for entry in mtq.FP8_KV_CFG["quant_cfg"]:
            constant = {"use_constant_amax": True} if kv_cache == "fp8-cast" else {}
            found.append({**entry, "cfg": {**entry["cfg"], **constant}})
    return found


def _preset_numerics(preset: Mapping[str, Any]) -> Any:
    entries = [e for e in preset["quant_cfg"] if e["quantizer_name"] == "*weight_quantizer" and e.get("cfg")]
    return entries[0]["cfg"]


def _targets(model: Any, quantize: Sequence[str]) -> list[str]:
    """Patterns of quantizer names, their ends left off: one per linear layer, one per block of fused experts."""
    here = _names_in_memory(model)
    targets = {f"{glob.escape(here[name])}.": None for name in quantize if name in here}
    absent = [name for name in quantize if name not in here]
    blocks: dict[str, set[tuple[str, str]]] = {}
    unknown: list[str] = []
    for name in absent:
        match = _EXPERT.match(name)
        if match and match.group(1) in here:
            blocks.setdefault(match.group(1), set()).add((match.group(2), match.group(3)))
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"transformers builds no module {unknown[0]} ({len(unknown)} such modules of {len(quantize)}).",
            hint="Keep these modules in the recipe, or use the engine native.",
        )
    for block, members in blocks.items():
        parts = {part for _, part in members}
        experts = _expert_count(model.get_submodule(here[block]))
        if len(parts) != 3 or len(members) != 3 * experts:
            raise CheckpointError(
                f"{block}: {len(members)} of {3 * experts} expert projections are to be quantized; modelopt keeps a "
                "layer's experts in one tensor and quantizes all or none.",
                hint="Quantize or keep all experts of a layer, or use the engine native.",
            )
        targets[f"{glob.escape(here[block])}.*"] = None
    return list(targets)


def _expert_count(module: Any) -> int:
    tensor = next((p for p in module.parameters() if p.dim() == 3), None)
    return int(tensor.shape[0]) if tensor is not None else 0


def _names_in_memory(model: Any) -> dict[str, str]:
    """Module name in the checkpoint to its name in the loaded model; transformers renames on loading."""
    try:
        mapper = build_reverse_name_mapper(model) or str
    except Exception as error:  # noqa: BLE001 - modelopt then exports names as they are in memory; so do we
        warnings.warn(f"names are taken as transformers has them: {error}", stacklevel=2)
        mapper = str
    return {mapper(name): name for name, _ in model.named_modules() if name}


def quantize(
    model: Any, config: list[dict[str, Any]], sequences: Sequence[list[int]], counted: Iterable[str]
) -> tuple[Any, dict[str, int]]:
    """Insert quantizers and calibrate them by running the model over `sequences` (none: weights only).

    Args:
        model: from `load`.
        config: from `rules`.
        sequences: token numbers of each sample.
        counted: checkpoint names of modules whose input tokens are counted, where they are modules of their own.

    Returns:
        the model, and the tokens each counted module saw.
    """
    tokens: dict[str, int] = {}
    progress = Progress(STAGE, max(sum(map(len, sequences)), 1), "tokens")

    def forward(calibrated: Any) -> None:
        handles = _count_tokens(calibrated, counted, tokens)
        device = calibrated.get_input_embeddings().weight.device
        with torch.inference_mode():
            for ids in sequences:
                calibrated(torch.tensor([ids], device=device), use_cache=False)
                progress.add(len(ids), step="calibrate")
        for handle in handles:
            handle.remove()

    model = mtq.quantize(model, {"quant_cfg": config, "algorithm": "max"}, forward if sequences else None)
    return model, tokens


def _count_tokens(model: Any, counted: Iterable[str], tokens: dict[str, int]) -> list[Any]:
    here = _names_in_memory(model)
    handles = []
    for name in counted:
        if name in here:
            tokens[name] = 0

            def count(_module: Any, inputs: tuple[Any, ...], name: str = name) -> None:
                if inputs:
                    tokens[name] += inputs[0].numel() // max(inputs[0].shape[-1], 1)

            handles.append(model.get_submodule(here[name]).register_forward_pre_hook(count))
    return handles


def export(model: Any, folder: Path, shard_size: int) -> None:
    """Write what modelopt writes: shards, config.json, hf_quant_config.json.

    Raises:
        EngineError: the exporter failed.
    """
    try:
        with torch.inference_mode():
            export_hf_checkpoint(model, export_dir=folder, max_shard_size=shard_size)
    except (AssertionError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise EngineError(
            f"modelopt's exporter failed: {_short(error)}", hint="Read engine.log; the engine native may do it."
        ) from error
