"""LC: sentences, tables and commands added to the card of a good checkpoint, and such that claim nothing wrong."""

from __future__ import annotations

from tests.builders.edits import Edit, card
from tests.builders.tiny import Tiny
from tests.rules.cases import Case

PARTIES = "\nMade from tiny/tiny; not affiliated with its authors.\n"
SCORES = """
| Benchmark | This | BF16 | Delta |
|---|---|---|---|
| MMLU, 5-shot | 60.10 ± 0.40 | 60.50 ± 0.40 | {delta} |
| GSM8K, 5-shot | 70.00 ± 0.50 | 70.20 ± 0.50 | -0.20 |
"""
PROTOCOL = "\nMeasured with lm-evaluation-harness 0.4.11 on a vLLM 0.33 server.\n"
VLLM = "\n```bash\nvllm serve tiny/tiny-FP4 {flags}\n```\n"


def says(text: str) -> Edit:
    """The card with something more in it."""

    def edit(tiny: Tiny) -> None:
        tiny.files["README.md"] += text.encode()

    return edit


def case(code: str, name: str, text: str, raises: str, base: str = "llama-nvfp4") -> Case:
    return Case(code, name, says(f"\n{text}\n"), raises, base=base, level="headers", place="README.md")


CASES = [
    case("LC04", "shards", "- **Storage:** 3 shards", "LC04"),
    case("LC04", "bytes", "The storage is 120 GB.", "LC04", base="llama-w4a16"),
    case("LC04", "group", "- Group size: 16", "LC04", base="llama-mxfp4"),
    case("LC04", "group-ct", "One scale per 32 values.", "LC04", base="llama-ct-nvfp4"),
    case("LC04", "experts", "It has 8 routed experts.", "LC04", base="mixture-mxfp4"),
    case(
        "LC04", "layers", "| Property | Value |\n|---|---|\n| Shape | 61 layers, 64 hidden |", "LC04", base="kimi-nvfp4"
    ),
    case("LC04", "modules", "**Quantized modules:** 1,000", "LC04", base="mixture-ct-nvfp4"),
    case("LC04", "product", "There are 100 = 3 layers × 4 experts × 3 projections.", "LC04", base="kimi-mxfp4"),
    case("LC04", "delta", SCORES.format(delta="-0.60") + PROTOCOL, "LC04"),
    case("LC05", "attention", "The attention layers remain BF16.", "LC05"),
    case("LC05", "routers", "Quantized to MXFP4:\n\n- All experts\n- MoE routers", "LC05", base="mixture-mxfp4"),
    case("LC05", "routers-kimi", "The MoE routers are quantized.", "LC05", base="kimi-nvfp4"),
    case("LC05", "kept", "Kept in BF16:\n\n- shared experts", "LC05", base="mixture-w4a16"),
    case("LC05", "cache", "- KV cache: FP8", "LC05", base="llama-ct-nvfp4"),
    case("LC05", "no-cache", "- KV cache: not quantized", "LC05", base="llama-nvfp4-cache"),
    case("LC05", "scheme", "A W4A4 checkpoint.", "LC05", base="llama-w4a16"),
    case("LC05", "format", "Weights are quantized to NVFP4.", "LC05", base="llama-ct-mxfp4"),
    case("LC05", "version", "Quantized with nvidia-modelopt 0.41.0.", "LC05"),
    case("LC05", "version-quark", "Produced with AMD Quark 0.10.", "LC05", base="llama-mxfp4"),
    case("LC05", "excerpt", '```json\n{"quant_algo": "NVFP4_AWQ"}\n```', "LC05"),
    case("LC05", "licence", "- License: MIT", "LC05"),
    case(
        "LC05",
        "lossless",
        SCORES.replace("60.10", "55.10").format(delta="-5.40") + PROTOCOL + "\nQuantization is lossless.\n",
        "LC05w",
    ),
    Case("LC10", "nobody", card(PARTIES, "\nA checkpoint.\n"), "LC10w", level="headers", place="README.md"),
    Case("LC10", "no-distance", card("not affiliated with its authors", "enjoy"), "LC10w", base="llama-mxfp4"),
    case("LC11", "no-harness", SCORES.format(delta="-0.40"), "LC11w"),
    case("LC12", "method", VLLM.format(flags="--quantization awq"), "LC12"),
    case("LC12", "method-quark", VLLM.format(flags="--quantization modelopt"), "LC12", base="llama-mxfp4"),
    case("LC12", "no-code", VLLM.format(flags="--trust-remote-code"), "LC12w", base="llama-ct-mxfp4"),
    case("LC12", "untrusted", VLLM.format(flags="--port 8001"), "LC12w", base="kimi-nvfp4"),
    case("LC13", "hopper", "Hopper and earlier GPUs will not work.", "LC13w"),
    case("LC13", "h100", "An H100 cannot run it.", "LC13w", base="llama-mxfp4"),
    case("LC13", "only", "The checkpoint only runs on Blackwell.", "LC13w", base="llama-ct-nvfp4"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    (
        "true counts",
        "mixture-nvfp4",
        says("\n- 3 layers, 4 routed + 1 shared experts, top-8 of nothing\n- Group size: 16\n"),
    ),
    ("a rounded difference", "llama-nvfp4", says(SCORES.format(delta="-0.4") + PROTOCOL + "\nEssentially lossless.\n")),
    ("kept as said", "kimi-mxfp4", says("\nThe vision tower, lm_head and the MoE routers remain BF16.\n")),
    ("numbers of another model", "llama-nvfp4", says("\nThe source has 64 shards, 500 GB and group size 128.\n")),
    ("another tool's version", "llama-nvfp4", says("\nReading it needs nvidia-modelopt 0.41 or newer.\n")),
    ("the method's own name", "llama-nvfp4", says(VLLM.format(flags="--quantization modelopt_fp4"))),
    ("trusted code that is there", "kimi-nvfp4", says(VLLM.format(flags="--trust-remote-code"))),
    ("untested GPUs", "llama-nvfp4", says("\nNot tested on H100; FP4 arithmetic needs Blackwell.\n")),
]
