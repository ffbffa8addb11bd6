"""SV: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from tests.builders.edits import DOWN, EXPERT, UP, Edit, poke, put, set_global
from tests.builders.tiny import f32
from tests.rules.cases import Case

CASES = [
    Case("SV01", "7f", poke(f"{UP}.weight_scale", 9, 0x7F), "SV01", place=f"{UP}.weight_scale"),
    Case("SV01", "ff", poke(f"{EXPERT}.up_proj.weight_scale", 0, 0xFF), "SV01", base="mixture-nvfp4", place=EXPERT),
    Case("SV03", "underflow", poke(f"{UP}.weight_scale", 5, 0), "SV03", place=f"{UP}.weight_scale"),
    Case("SV05", "zero", set_global(DOWN, 0.0), "SV05", place=DOWN),
    Case("SV05", "nan", set_global(DOWN, float("nan")), "SV05", place=DOWN),
    Case("SV05", "subnormal", set_global(DOWN, 1e-40), "SV05", place=DOWN),
    Case("SV05", "reciprocal", set_global(DOWN, 26880.0), "SV05w", place=DOWN),
    Case("SV08", "zero", put(f"{DOWN}.input_scale", f32(0.0)), "SV08", place=DOWN),
    Case("SV08", "infinite", put(f"{DOWN}.input_scale", f32(float("inf"))), "SV08", place=DOWN),
    Case("SV08", "huge", put(f"{DOWN}.input_scale", f32(1e6)), "SV08w", place=DOWN),
    Case("SV11", "ff", poke(f"{UP}.weight_scale", 3, 0xFF), "SV11", base="llama-mxfp4", place=f"{UP}.weight_scale"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
