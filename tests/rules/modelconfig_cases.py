"""CF: edits of the keys that describe the model, with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import numpy as np

from tests.builders.edits import Edit, config
from tests.builders.tiny import Tiny, bf16
from tests.rules.cases import Case

TOWER = "vision_tower.encoder.blocks.0.wqkv.weight"


def untowered(tiny: Tiny) -> None:
    tiny.tensors = {n: t for n, t in tiny.tensors.items() if not n.startswith(("vision_tower.", "mm_projector."))}


def tower(tiny: Tiny) -> None:
    tiny.tensors[TOWER] = bf16(np.ones((16, 16), np.float32))


def dtype_of_the_text(tiny: Tiny) -> None:
    tiny.config["text_config"]["dtype"] = tiny.config.pop("torch_dtype")


def newer_rope(tiny: Tiny) -> None:
    """What transformers 5 makes of a config it saves."""
    tiny.config["rope_parameters"] = {"rope_theta": 50000.0, "rope_type": "default"}
    tiny.config.pop("rope_theta")


CASES = [
    Case("CF40", "no-type", lambda tiny: tiny.config.pop("model_type"), "CF25 CF40", base="llama-ct-mxfp4"),
    Case("CF40", "no-architecture", config(architectures=None), "CF25 CF40", base="kimi-mxfp4"),
    Case("CF40", "no-class", config(architectures=["Llama For Causal LM"]), "CF25 CF40"),
    Case("CF41", "layers", config(num_hidden_layers="2"), "CF25 CF41"),
    Case("CF41", "heads", config(num_attention_heads=0), "CF25 CF41"),
    Case(
        "CF41",
        "inside",
        lambda tiny: tiny.config["text_config"].update(n_routed_experts=-4),
        "CF25 CF41 CN16w",
        base="kimi-nvfp4",
    ),
    Case("CF25", "rope", config(rope_theta=1e6), "CF25"),
    Case("CF25", "key-lost", lambda tiny: tiny.config.pop("rope_theta"), "CF25"),
    Case("CF26", "absent", lambda tiny: tiny.config.pop("torch_dtype"), "CF26w"),
    Case("CF26", "float32", config(torch_dtype="float32"), "CF26w", base="kimi-mxfp4"),
    Case("CF26", "two", config(dtype="float16"), "CF26w"),
    Case("CF32", "theta", config(rope_parameters={"rope_theta": 1e6, "rope_type": "default"}), "CF25 CF32"),
    Case(
        "CF32",
        "scaling",
        config(rope_scaling={"type": "yarn", "factor": 4}, rope_parameters={"rope_type": "linear", "factor": 4}),
        "CF25 CF32",
    ),
    Case("CF32", "newer-form-only", newer_rope, "CF25 CF32w"),
    Case("CF32", "newer-form-alone", newer_rope, "CF32i", evidence={"source": None}),
    Case("CF33", "no-common-token", config(eos_token_id=7), "CF25 CF33w"),
    Case("CF33", "alone", config(eos_token_id=7), "CF33i", evidence={"source": None}),
    Case("CF34", "no-tower", untowered, "CF34 NM12", base="kimi-nvfp4"),
    Case("CF34", "text-only", tower, "CF34w NM07", evidence={"source": None}),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("dtypes-alike", "llama-nvfp4", config(dtype="bfloat16")),
    ("dtype-of-the-text", "kimi-nvfp4", dtype_of_the_text),
]
