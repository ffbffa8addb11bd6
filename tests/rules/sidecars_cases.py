"""SD: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from tests.builders.edits import Edit, file
from tests.rules.cases import Case

CASES = [
    Case(
        "SD01", "rewritten", file("tokenizer.json", b'{"version":"1.0","model":{}}\n'), "SD01", place="tokenizer.json"
    ),
    Case("SD01", "lost", file("chat_template.jinja", None), "SD01", place="chat_template.jinja"),
    Case(
        "SD03",
        "beside-quark",
        lambda tiny: setattr(tiny, "hf_quant_config", {"quantization": {"quant_algo": "MXFP4"}}),
        "CF03 CF04 SD03",
        base="llama-mxfp4",
        place="hf_quant_config.json",
    ),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []
