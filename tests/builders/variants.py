"""Tiny checkpoints of further kinds: other architectures, smoothing, mixed precision, calibrated caches."""

from __future__ import annotations

import copy
from collections.abc import Callable

import ml_dtypes
import numpy as np

from tests.builders.tiny import (
    Tensor,
    Tiny,
    _finished,
    _pack,
    _source,
    bf16,
    compressed,
    f32,
    llama,
    mixture,
    mxfp4,
    nvfp4,
    values_of,
)

RNG = np.random.default_rng(5)


def noise(*shape: int) -> Tensor:
    return bf16(RNG.normal(0, 0.02, shape).astype(np.float32))


def keeping(source: Tiny, make: Callable[[Tiny], Tiny], **kept: str) -> Tiny:
    """Quantize all but the layers with one of these parts in their name; modelopt's list has the globs given."""
    rest = copy.deepcopy(source)
    plain = {name: tensor for name, tensor in source.tensors.items() if any(f".{part}." in name for part in kept)}
    rest.tensors = {name: tensor for name, tensor in rest.tensors.items() if name not in plain}
    result = make(rest)
    result.tensors |= plain
    block = result.config["quantization_config"]
    if result.hf_quant_config is not None:
        block["ignore"] += kept.values()
        result.hf_quant_config["quantization"]["exclude_modules"] += kept.values()
    else:
        names = {name.rpartition(".")[0] for name, tensor in plain.items() if len(tensor.shape) == 2}
        block["exclude" if "exclude" in block else "ignore"] += sorted(names)
    return _finished(result)


# --- sources -------------------------------------------------------------------------------------------------------


def tied() -> Tiny:
    """Biases on q, k and v; the head is the embedding, as in small Qwen2 models."""
    source = llama()
    del source.tensors["lm_head.weight"]
    for layer in range(2):
        for part, size in {"q": 64, "k": 32, "v": 32}.items():
            source.tensors[f"model.layers.{layer}.self_attn.{part}_proj.bias"] = noise(size)
    source.config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True}
    source.tensors = dict(sorted(source.tensors.items()))
    return source


def merged() -> Tiny:
    """Projections stored merged, as in Phi-3."""
    source = llama()
    for layer in range(2):
        at = f"model.layers.{layer}"
        for part in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
            del source.tensors[f"{at}.{part}_proj.weight"]
        source.tensors[f"{at}.self_attn.qkv_proj.weight"] = noise(128, 64)
        source.tensors[f"{at}.mlp.gate_up_proj.weight"] = noise(192, 64)
    source.config |= {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    source.tensors = dict(sorted(source.tensors.items()))
    return source


def predicting() -> Tiny:
    """The mixture with a prediction layer numbered on after the decoder, and an indexer of sparse attention."""
    source = mixture()
    for name in [name for name in source.tensors if ".layers.2." in name]:
        source.tensors[name.replace(".layers.2.", ".layers.3.")] = source.tensors[name]
    at = "model.layers.3"
    source.tensors |= {f"{at}.eh_proj.weight": noise(64, 128), f"{at}.shared_head.head.weight": noise(32, 64)}
    source.tensors |= {f"{at}.{name}.weight": noise(64) for name in ("enorm", "hnorm", "shared_head.norm")}
    for layer in range(4):
        indexer = f"model.layers.{layer}.self_attn.indexer"
        source.tensors |= {f"{indexer}.wk.weight": noise(32, 64), f"{indexer}.weights_proj.weight": noise(4, 64)}
    source.config |= {"num_nextn_predict_layers": 1, "tie_word_embeddings": False}
    source.tensors = dict(sorted(source.tensors.items()))
    return source


def gpt_oss() -> Tiny:
    """Experts in one tensor per projection, gate and up rows alternating, biases everywhere, in 16 bits."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (32, 64),
        "model.norm.weight": (64,),
        "lm_head.weight": (32, 64),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        for part, rows in {"q": 64, "k": 32, "v": 32, "o": 64}.items():
            shapes |= {f"{at}.self_attn.{part}_proj.weight": (rows, 64), f"{at}.self_attn.{part}_proj.bias": (rows,)}
        shapes |= {
            f"{at}.self_attn.sinks": (4,),
            f"{at}.mlp.router.weight": (4, 64),
            f"{at}.mlp.router.bias": (4,),
            f"{at}.mlp.experts.gate_up_proj": (4, 64, 192),
            f"{at}.mlp.experts.gate_up_proj_bias": (4, 192),
            f"{at}.mlp.experts.down_proj": (4, 96, 64),
            f"{at}.mlp.experts.down_proj_bias": (4, 64),
        }
        shapes |= {f"{at}.{n}_layernorm.weight": (64,) for n in ("input", "post_attention")}
    config = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_local_experts": 4,
        "num_hidden_layers": 2,
        "tie_word_embeddings": False,
        "rope_theta": 150000.0,
        "torch_dtype": "bfloat16",
    }
    return _source(shapes, config)


# --- results -------------------------------------------------------------------------------------------------------


def expert_blocks(source: Tiny) -> Tiny:
    """gpt-oss's own MXFP4: blocks of 32 along the input, low nibble first, and their exponents."""
    result = copy.deepcopy(source)
    for name in [name for name in source.tensors if name.endswith((".down_proj", ".gate_up_proj"))]:
        values = values_of(result.tensors.pop(name)).transpose(0, 2, 1)
        experts, rows, columns = values.shape
        blocks = values.reshape(experts, rows, columns // 32, 32)
        exponent = np.floor(np.log2(abs(blocks).max(axis=3))) - 2
        packed = _pack((blocks / 2.0 ** exponent[..., None]).reshape(-1, columns))
        result.tensors[f"{name}_blocks"] = Tensor("U8", (experts, rows, columns // 32, 16), packed)
        scales = (exponent + 127).astype(np.uint8)
        result.tensors[f"{name}_scales"] = Tensor("U8", scales.shape, scales.tobytes())
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    result.config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": plain}
    return _finished(result)


def expert_stacks(source: Tiny) -> Tiny:
    """gpt-oss in NVFP4 as modelopt 0.47 exports it: a stack's codes and scales turned around, one scalar for all."""
    result = nvfp4(source)
    for name in [name for name in source.tensors if name.endswith((".down_proj", ".gate_up_proj"))]:
        values = values_of(result.tensors.pop(name)).transpose(0, 2, 1)
        experts, rows, columns = values.shape
        scale_2 = np.float32(abs(values).max() / np.float32(2688))
        blocks = values.reshape(experts, rows, columns // 16, 16)
        scales = (abs(blocks).max(axis=3) / (np.float32(6) * scale_2)).astype(ml_dtypes.float8_e4m3fn)
        scaled = blocks / (scales.astype(np.float32) * scale_2)[..., None]
        packed = np.frombuffer(_pack(scaled.reshape(-1, columns)), np.uint8).reshape(experts, rows, columns // 2)
        turned = packed.transpose(0, 2, 1)
        result.tensors[name] = Tensor("U8", turned.shape, turned.tobytes())
        codes = scales.view(np.uint8).transpose(0, 2, 1)
        result.tensors[f"{name}_weight_scale"] = Tensor("F8_E4M3", codes.shape, codes.tobytes())
        result.tensors[f"{name}_weight_scale_2"] = f32(float(scale_2))
        result.tensors[f"{name}_input_scale"] = f32(0.001)
    return _finished(result)


def smoothed(source: Tiny) -> Tiny:
    """NVFP4_AWQ: what fused members share is smoothed alike, as are all experts of a layer."""
    result = nvfp4(source)
    block, body = result.config["quantization_config"], result.hf_quant_config["quantization"]
    block["quant_algo"] = body["quant_algo"] = "NVFP4_AWQ"
    del block["config_groups"]
    body |= {"has_zero_point": False, "pre_quant_scale": True}
    for name in [name for name in result.tensors if name.endswith(".weight_scale")]:
        module, width = name.removesuffix(".weight_scale"), result.tensors[name].shape[1] * 16
        seed = 1 + width + module.endswith("down_proj")
        values = np.random.default_rng(seed).uniform(0.5, 2, width).astype(np.float32)
        result.tensors[f"{module}.pre_quant_scale"] = bf16(values)
    return _finished(result)


def mixed(source: Tiny) -> Tiny:
    """modelopt's MIXED_PRECISION: routed experts in NVFP4, the other linear layers in FP8."""
    result = nvfp4(source)
    layers: dict[str, dict[str, object]] = {}
    for name in [name for name in result.tensors if name.endswith(".weight_scale")]:
        module = name.removesuffix(".weight_scale")
        layers[module] = {"quant_algo": "NVFP4", "group_size": 16}
        if ".experts." in module:
            continue
        layers[module] = {"quant_algo": "FP8"}
        values = values_of(source.tensors[f"{module}.weight"])
        scale = np.float32(abs(values).max() / 448)
        codes = (values / scale).astype(ml_dtypes.float8_e4m3fn)
        del result.tensors[f"{module}.weight_scale_2"]
        result.tensors[f"{module}.weight"] = Tensor("F8_E4M3", codes.shape, codes.tobytes())
        result.tensors[name] = f32(float(scale))
    block, body = result.config["quantization_config"], result.hf_quant_config["quantization"]
    four, eight = ({"dynamic": False, "num_bits": bits, "type": "float"} for bits in (4, 8))
    four["group_size"] = 16
    block["config_groups"] = {
        f"group_{number}": {
            "input_activations": spec,
            "weights": spec,
            "targets": sorted(name for name, layer in layers.items() if layer["quant_algo"] == algo),
        }
        for number, (algo, spec) in enumerate({"FP8": eight, "NVFP4": four}.items())
    }
    for declared in (block, body):
        declared["quant_algo"] = "MIXED_PRECISION"
        declared["quantized_layers"] = layers
    del body["group_size"]
    return _finished(result)


def quark_nvfp4(source: Tiny) -> Tiny:
    """Quark 0.13's two-level NVFP4: a list of two specs, and scales of its own names."""
    result, form = nvfp4(source), mxfp4(source)
    block = form.config["quantization_config"]
    for name in [name for name in result.tensors if name.endswith(".input_scale")]:
        result.tensors[f"{name}_2"] = result.tensors.pop(name)
    first = {"dtype": "fp4", "qscheme": "per_group", "ch_axis": -1, "group_size": 16, "scale_format": "e4m3"}
    second = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "scale_format": "float32"}
    specs = [{**first, "is_dynamic": False}, {**second, "is_dynamic": False}]
    inputs = [{**first, "is_dynamic": True}, {**second, "is_dynamic": False}]
    block["global_quant_config"] |= {"weight": specs, "input_tensors": inputs}
    block["version"] = "0.13"
    result.config["quantization_config"], result.hf_quant_config = block, None
    return _finished(result)


# --- calibrated caches ---------------------------------------------------------------------------------------------


def _scales(result: Tiny, key: str, value: str) -> Tiny:
    layers = sorted({name.partition("o_proj.")[0] for name in result.tensors if ".self_attn.o_proj." in name})
    for number, layer in enumerate(layers):
        result.tensors |= {layer + key: f32(0.02 + number / 1000), layer + value: f32(0.03 + number / 1000)}
    return _finished(result)


def cached(result: Tiny) -> Tiny:
    """modelopt's calibrated FP8 cache."""
    result.config["quantization_config"]["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    result.hf_quant_config["quantization"]["kv_cache_quant_algo"] = "FP8"
    return _scales(result, "k_proj.k_scale", "v_proj.v_scale")


def cached_quark(result: Tiny) -> Tiny:
    """Quark's calibrated FP8 cache: outputs of k and v."""
    block = result.config["quantization_config"]
    output = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False, "symmetric": True}
    spec = {**block["global_quant_config"], "output_tensors": output}
    names = ["*k_proj", "*v_proj"]
    block["layer_quant_config"] = {name: copy.deepcopy(spec) for name in names}
    block["kv_cache_quant_config"] = {name: copy.deepcopy(spec) for name in names}
    block["export"]["kv_cache_group"] = names
    return _scales(result, "k_proj.output_scale", "v_proj.output_scale")


def cached_compressed(result: Tiny) -> Tiny:
    """llm-compressor's calibrated FP8 cache: scales of the attention layer itself."""
    result.config["quantization_config"]["kv_cache_scheme"] = {
        "num_bits": 8,
        "type": "float",
        "strategy": "tensor",
        "symmetric": True,
        "dynamic": False,
    }
    return _scales(result, "k_scale", "v_scale")


PREDICTING = {"layers.3": "model.layers.3.*", "indexer": "*.indexer.*"}
VARIANTS: dict[str, Callable[[], tuple[Tiny, Tiny]]] = {
    "tied-nvfp4": lambda: (s := tied(), nvfp4(s)),
    "merged-mxfp4": lambda: (s := merged(), mxfp4(s)),
    "predicting-nvfp4": lambda: (s := predicting(), keeping(s, nvfp4, **PREDICTING)),
    "predicting-mxfp4": lambda: (s := predicting(), keeping(s, mxfp4, **PREDICTING)),
    "gpt-oss": lambda: (s := gpt_oss(), expert_blocks(s)),
    "gpt-oss-nvfp4": lambda: (s := gpt_oss(), expert_stacks(s)),
    "llama-awq": lambda: (s := llama(), smoothed(s)),
    "mixture-awq": lambda: (s := mixture(), smoothed(s)),
    "mixture-mixed": lambda: (s := mixture(), mixed(s)),
    "llama-quark-nvfp4": lambda: (s := llama(), quark_nvfp4(s)),
    "mixture-quark-nvfp4": lambda: (s := mixture(), quark_nvfp4(s)),
    "llama-nvfp4-cache": lambda: (s := llama(), cached(nvfp4(s))),
    "mixture-nvfp4-cache": lambda: (s := mixture(), cached(nvfp4(s))),
    "llama-mxfp4-cache": lambda: (s := llama(), cached_quark(mxfp4(s))),
    "llama-ct-nvfp4-cache": lambda: (s := llama(), cached_compressed(compressed(s, "nvfp4"))),
}
