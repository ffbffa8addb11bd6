"""Sources that are themselves quantized or fused, each with the weights they stand for: INT4, FP8, experts in a stack.

Packed and scaled here by plain numpy and ml_dtypes, so that the product's decoders meet bytes they did not write.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import ml_dtypes
import numpy as np

from tests.builders.tiny import Tensor, Tiny, _pack, bf16, compressed, kimi, llama, mixture, mxfp4, nvfp4, values_of
from tests.builders.variants import keeping

Pair = tuple[Tiny, Tiny]
# What Kimi keeps in 16 bits, and how an exclude list says so.
KEPT = {"self_attn": "*self_attn*", "shared_experts": "*shared_experts*", "layers.0.mlp": "*layers.0.mlp*"}


def packed_int4(integers: np.ndarray) -> bytes:
    """Integers -8..7 (rows, columns) as words of eight, element 0 in the lowest four bits."""
    rows, columns = integers.shape
    words = np.zeros((rows, columns // 8), np.uint32)
    for place in range(8):
        words |= (integers[:, place::8].astype(np.int64) + 8).astype(np.uint32) << np.uint32(4 * place)
    return words.astype("<u4").tobytes()


def int4_weight(values: np.ndarray, group: int = 32) -> tuple[dict[str, Tensor], Tensor]:
    """The three tensors of one weight, and what they stand for in BF16."""
    rows, columns = values.shape
    groups = values.reshape(rows, -1, group)
    scale = (abs(groups).max(axis=2) / 7).astype(ml_dtypes.bfloat16)
    wide = scale.astype(np.float32)[..., None]
    integers = np.clip(np.rint(groups / wide), -8, 7)
    meant = (integers * wide).astype(np.float32).reshape(rows, columns)
    stored = {
        "weight_packed": Tensor("I32", (rows, columns // 8), packed_int4(integers.reshape(rows, columns))),
        "weight_scale": Tensor("BF16", scale.shape, scale.tobytes()),
        "weight_shape": Tensor("I64", (2,), np.array([rows, columns], "<i8").tobytes()),
    }
    return stored, bf16(meant)


def int4(source: Tiny) -> Pair:
    """The source with its routed experts in compressed-tensors' INT4, as Kimi K2 is published, and decoded."""
    stored, meant = copy.deepcopy(source), copy.deepcopy(source)
    for name in [name for name in source.tensors if ".experts." in name]:
        tensors, meant.tensors[name] = int4_weight(values_of(stored.tensors.pop(name)))
        stored.tensors |= {f"{name.removesuffix('weight')}{suffix}": tensor for suffix, tensor in tensors.items()}
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    stored.config["text_config"]["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|down)_proj.*", "lm_head"],
    }
    stored.tensors = dict(sorted(stored.tensors.items()))
    return stored, meant


def fp8_weight(values: np.ndarray, block: tuple[int, int]) -> tuple[dict[str, Tensor], Tensor]:
    """A weight and its `weight_scale_inv`, and what they stand for in BF16."""
    rows, columns = values.shape
    tall, wide = -(-rows // block[0]), -(-columns // block[1])
    scale = np.zeros((tall, wide), np.float32)
    codes = np.zeros((rows, columns), ml_dtypes.float8_e4m3fn)
    meant = np.zeros((rows, columns), np.float32)
    for i in range(tall):
        for j in range(wide):
            at = np.s_[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            scale[i, j] = abs(values[at]).max() / 448
            codes[at] = (values[at] / scale[i, j]).astype(ml_dtypes.float8_e4m3fn)
            meant[at] = codes[at].astype(np.float32) * scale[i, j]
    stored = {
        "weight": Tensor("F8_E4M3", (rows, columns), codes.tobytes()),
        "weight_scale_inv": Tensor("F32", scale.shape, scale.tobytes()),
    }
    return stored, bf16(meant)


def fp8(source: Tiny, block: tuple[int, int] = (24, 40)) -> Pair:
    """The source with every projection in FP8 by blocks, as DeepSeek-V3 is published, and decoded."""
    stored, meant = copy.deepcopy(source), copy.deepcopy(source)
    for name in [name for name in source.tensors if "_proj" in name and name.endswith(".weight")]:
        tensors, meant.tensors[name] = fp8_weight(values_of(stored.tensors.pop(name)), block)
        stored.tensors |= {f"{name.removesuffix('weight')}{suffix}": tensor for suffix, tensor in tensors.items()}
    stored.config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    stored.tensors = dict(sorted(stored.tensors.items()))
    return stored, meant


def fused(source: Tiny, *, transposed: bool = False, interleaved: bool = False) -> Pair:
    """The source with the experts of a layer in one tensor per projection, and as it was."""
    stored = copy.deepcopy(source)
    stacks: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name in [name for name in source.tensors if ".experts." in name]:
        parent, _, rest = name.removesuffix(".weight").partition(".experts.")
        number, _, projection = rest.partition(".")
        values = values_of(stored.tensors.pop(name))
        stacks.setdefault(f"{parent}.experts", {}).setdefault(projection, {})[int(number)] = values
    for parent, parts in stacks.items():
        gate, up, down = (np.stack([part[n] for n in sorted(part)]) for part in map(parts.get, ORDER))  # type: ignore[union-attr]
        both = np.stack([gate, up], axis=2).reshape(len(gate), -1, gate.shape[2])
        both = both if interleaved else np.concatenate([gate, up], axis=1)
        if transposed:
            both, down = both.transpose(0, 2, 1), down.transpose(0, 2, 1)
        stored.tensors |= {f"{parent}.gate_up_proj": bf16(both.copy()), f"{parent}.down_proj": bf16(down.copy())}
    stored.tensors = dict(sorted(stored.tensors.items()))
    return stored, source


ORDER = ("gate_proj", "up_proj", "down_proj")


def _experts(pair: Pair, make: Callable[[Tiny], Tiny] = nvfp4) -> Pair:
    """A quantized source, and a result that packs again what it packed."""
    stored, meant = pair
    return stored, keeping(meant, make, **KEPT)


def mse(source: Tiny) -> Tiny:
    """modelopt's NVFP4 with, of each block, the best of all positive E4M3 scales."""
    result = nvfp4(source)
    for name in [name for name in result.tensors if name.endswith(".weight_scale")]:
        module = name.removesuffix(".weight_scale")
        values = values_of(source.tensors[f"{module}.weight"])
        scale = np.frombuffer(result.tensors[f"{module}.weight_scale_2"].data, "<f4")[0]
        best = swept(values.reshape(values.shape[0], -1, 16), scale)
        result.tensors[name].data = best.astype(ml_dtypes.float8_e4m3fn).tobytes()
        scaled = values.reshape(values.shape[0], -1, 16) / (best * scale)[..., None]
        result.tensors[f"{module}.weight"].data = _pack(scaled.reshape(values.shape))
    return result


def swept(blocks: np.ndarray, scale: np.float32) -> np.ndarray:
    """The block scale of least squared error, by trying them all."""
    grid = np.arange(1, 127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    best, least = np.zeros(blocks.shape[:2], np.float32), np.full(blocks.shape[:2], np.inf)
    for value in grid:
        step = np.float32(value * scale)
        made = np.clip(blocks / step, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float64) * step
        error = ((made - blocks) ** 2).sum(axis=2)
        best, least = np.where(error < least, value, best), np.minimum(error, least)
    return best


def pruned(source: Tiny, *, dense: bool = False) -> Pair:
    """Experts without two of every four pairs of weights, said in the card; `dense` keeps them in the source."""
    sparse = copy.deepcopy(source)
    for name in [name for name in source.tensors if ".experts." in name]:
        values = values_of(sparse.tensors[name]).reshape(-1, 4, 2).copy()
        lost = np.argsort(abs(values).sum(axis=2), axis=1)[:, :2]
        values[np.arange(len(values))[:, None], lost] = 0
        sparse.tensors[name] = bf16(values.reshape(sparse.tensors[name].shape))
    result = compressed(sparse, "nvfp4")
    tag(result, "paired-4:8")
    return source if dense else sparse, result


def stated(pair: Pair) -> Pair:
    """The same, and config.json says which modules are pruned."""
    pair[1].config["sparsity"] = {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.mlp.experts.*"]}
    return pair


def tag(tiny: Tiny, text: str) -> None:
    """Put a tag into the card, as YAML writes it."""
    head, mark, body = tiny.files["README.md"].decode().partition("\n---\n")
    kept = [line for line in head.splitlines() if not line.startswith("tags:")]
    tiny.files["README.md"] = "\n".join([*kept, f"tags: [fp4, quantized, {text}]{mark}{body}"]).encode()


SOURCES: dict[str, Callable[[], Pair]] = {
    "int4-nvfp4": lambda: (pair := int4(kimi()), (pair[0], nvfp4(pair[1])))[1],
    "kimi-int4-nvfp4": lambda: _experts(int4(kimi())),
    "kimi-int4-mxfp4": lambda: _experts(int4(kimi()), mxfp4),
    "mixture-fp8-nvfp4": lambda: (pair := fp8(mixture()), (pair[0], nvfp4(pair[1])))[1],
    "llama-nvfp4-mse": lambda: (source := llama(), mse(source)),
    "mixture-pruned": lambda: pruned(mixture()),
    "mixture-pruned-stated": lambda: stated(pruned(mixture())),
    "mixture-pruned-dense": lambda: pruned(mixture(), dense=True),
    "fused-nvfp4": lambda: (pair := fused(mixture()), (pair[0], nvfp4(pair[1])))[1],
    "fused-transposed-mxfp4": lambda: (pair := fused(mixture(), transposed=True), (pair[0], mxfp4(pair[1])))[1],
}
