"""How much memory the weights take per GPU at each tensor-parallel size: an estimate from headers, never a measurement.

What engines split and what they copy whole is `checkpoint.parallel`'s knowledge; memory of GPUs comes from their
makers' data sheets. The same room is left beside the weights as the rules leave (a tenth of the memory and a fixed
part), so a size counted as fitting here is not doubted by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.card.glance import MODELS
from publisher.card.value import Row, Table, Value, count
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import Split, tensor_parallel, text_config, worth
from publisher.units import format_bytes

MEMORY = "hardware/memory.json"
ORIGIN = "estimate from shard headers and hardware/memory.json"
FIRST = {"nvfp4": ("B200", "B300", "RTX PRO 6000", "H200", "H100"), "mxfp4": ("MI355X", "MI325X", "MI300X", "B200")}
_LATENT = ("kv_lora_rank", "qk_rope_head_dim")


def splits(checkpoint: Checkpoint) -> tuple[Split, ...]:
    """The tensor-parallel sizes worth naming, with the weights each GPU holds."""
    return tuple(s for s in tensor_parallel(checkpoint) if s.size == 1 or worth(checkpoint, s.size))


def smallest(checkpoint: Checkpoint, engine: str, found: tuple[Split, ...]) -> int | None:
    """The smallest size an engine can split into whose share fits the first GPU of the format; None without one."""
    room = _rooms(checkpoint)
    first = next(iter(room.values()), None)
    fitting = (s.size for s in found if s.works(engine) and first is not None and s.bytes_per_gpu <= first)
    return next(fitting, None)


def memory_table(checkpoint: Checkpoint, found: tuple[Split, ...]) -> Table | None:
    """Weights per GPU and which GPUs have room for them; None for a format without GPUs in the table."""
    room = _rooms(checkpoint)
    if not room or not checkpoint.tensors:
        return None
    rows = []
    for split in found:
        fits = [name for name, most in room.items() if split.bytes_per_gpu <= most]
        cells = (f"{count(split.size)}", format_bytes(split.bytes_per_gpu), ", ".join(fits) or "none of those named")
        rows.append(tuple(Value(text, ORIGIN) for text in cells))
    return Table(("GPUs", "Weights per GPU (estimate)", "Room for them on"), tuple(rows))


def cache_row(checkpoint: Checkpoint) -> Row | None:
    """Bytes of the key-value cache one token takes, for the kinds of models whose cache is known."""
    size = _cache_bytes(checkpoint)
    if size is None:
        return None
    quant = checkpoint.quant
    how = "as the FP8 cache it declares" if _fp8(quant.kv_cache if quant else None) else "in 16 bits"
    where = "held whole by every GPU" if _latent(checkpoint) else "shared out over the GPUs"
    text = f"{format_bytes(size)} per token over all layers, {how}, {where}"
    return Row("Key-value cache (estimate)", Value(text, "config.json"))


def _rooms(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Bytes for weights by GPU, for the GPUs of the checkpoint's format."""
    table = jsonio.data(MEMORY)
    known = {gpu["name"]: gpu["gigabytes"] * 10**9 for gpu in table["gpus"]}
    quant = checkpoint.quant
    names = FIRST.get((quant.format if quant is not None else None) or "", ())
    return {name: int(known[name] * table["share"]) - table["headroom_bytes"] for name in names if name in known}


def _latent(checkpoint: Checkpoint) -> bool:
    """Whether one latent vector per token is cached, which no engine splits."""
    return bool(_kinds(checkpoint) & set(jsonio.data(MODELS)["cache"]["latent"]))


def _kinds(checkpoint: Checkpoint) -> set[str]:
    found = (text_config(checkpoint).get("model_type"), checkpoint.config.get("model_type"))
    return {kind for kind in found if isinstance(kind, str)}


def _cache_bytes(checkpoint: Checkpoint) -> int | None:
    text, quant = text_config(checkpoint), checkpoint.quant
    grouped = set(jsonio.data(MODELS)["cache"]["grouped"])
    per = 1 if _fp8(quant.kv_cache if quant else None) else 2
    layers = _number(text, "num_hidden_layers")
    if layers is None:
        return None
    if _latent(checkpoint):
        parts = [_number(text, key) for key in _LATENT]
        return None if None in parts else sum(filter(None, parts)) * layers * per
    return next(_grouped(text, layers * per), None) if _kinds(checkpoint) & grouped else None


def _grouped(text: Mapping[str, Any], scale: int) -> Iterator[int]:
    heads, shared = _number(text, "num_attention_heads"), _number(text, "num_key_value_heads")
    width, hidden = _number(text, "head_dim"), _number(text, "hidden_size")
    if width is None and heads and hidden:
        width = hidden // heads
    if (shared or heads) and width:
        yield 2 * (shared or heads or 0) * width * scale


def _fp8(kv_cache: str | None) -> bool:
    return (kv_cache or "").startswith("fp8")


def _number(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and 0 < value < 10**9 else None
