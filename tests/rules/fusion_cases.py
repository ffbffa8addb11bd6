"""FU: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from tests.builders.edits import EXPERT, UP, Edit, set_global
from tests.rules.cases import Case

CASES = [
    Case("FU01", "k", set_global("model.layers.0.self_attn.k_proj", 3e-5), "FU01", place="model.layers.0.self_attn"),
    Case("FU02", "dense", set_global(UP, 3e-5), "FU02", place="model.layers.0.mlp"),
    Case("FU02", "shared", set_global("model.layers.1.mlp.shared_experts.up_proj", 3e-5), "FU02", base="mixture-nvfp4"),
    Case("FU03", "latent", set_global("model.layers.0.self_attn.q_a_proj", 3e-5), "FU03", base="mixture-nvfp4"),
    Case("FU04", "expert", set_global(f"{EXPERT}.gate_proj", 3e-5), "FU04", base="mixture-w4a16", place=EXPERT),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
