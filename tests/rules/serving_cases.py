"""TP: edits of good checkpoints with exactly the codes they raise, and commands that raise nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.builders.edits import EXPERT, SECOND, Edit, drop, each, later, put
from tests.builders.tiny import Tensor, Tiny, f32, framed
from tests.rules.cases import Case

VLLM, SGLANG = "vllm serve tiny/tiny-FP4", "python -m sglang.launch_server --model-path tiny/tiny-FP4"
ATOM, TRTLLM = "python -m atom.entrypoints.openai_server --model tiny/tiny-FP4", "trtllm-serve tiny/tiny-FP4"
ONE = b"\0\0\x80\x3f"
TP = "--tensor-parallel-size"
GATE = "model.layers.0.self_attn.g_proj"
DOWN = "model.layers.0.mlp.down_proj"


def serve(command: str, prose: str = "") -> Edit:
    """A card that shows a command, the flags on lines of their own."""
    block = "\n```bash\n" + command.replace(" --", " \\\n    --") + "\n```\n" + prose

    def edit(tiny: Tiny) -> None:
        tiny.files["README.md"] += block.encode()

    return edit


def grown(elements: int) -> Edit:
    """A checkpoint of gigabytes that takes no room: its last tensor becomes a hole of a sparse file."""

    def change(folder: Path) -> None:
        path = folder / SECOND
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        head: dict[str, Any] = json.loads(raw[8 : 8 + length])
        entry = head["model.norm.weight"]
        begin = entry["data_offsets"][0]
        more = 2 * elements - (entry["data_offsets"][1] - begin)
        entry |= {"shape": [elements], "data_offsets": [begin, begin + 2 * elements]}
        data = framed(json.dumps(head).encode(), raw[8 + length :])
        with path.open("wb") as file:
            file.write(data)
            file.truncate(len(data) + more)
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        index["metadata"]["total_size"] += more
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return later(change)


def plain(name: str, rows: int, columns: int) -> Edit:
    """Make a projection NVFP4 of another shape."""
    return each(
        put(f"{name}.weight", Tensor("U8", (rows, columns // 2), b"\x22" * (rows * columns // 2))),
        put(f"{name}.weight_scale", Tensor("F8_E4M3", (rows, columns // 16), b"\x7e" * (rows * columns // 16))),
        put(f"{name}.weight_scale_2", f32(1e-4)),
        put(f"{name}.input_scale", f32(0.0031)),
    )


def squares(name: str, rows: int, columns: int) -> Edit:
    """Make a projection FP8 in squares of 32, as DeepSeek stores them in squares of 128."""
    return each(
        drop(*(f"{name}.{suffix}" for suffix in ("weight_scale", "weight_scale_2", "input_scale"))),
        put(f"{name}.weight", Tensor("F8_E4M3", (rows, columns), b"\x38" * (rows * columns))),
        put(
            f"{name}.weight_scale_inv",
            Tensor("F32", (rows // 32, columns // 32), b"\0\0\x80\x3f" * (rows * columns // 1024)),
        ),
    )


def mxfp8(name: str, rows: int, columns: int) -> Edit:
    return each(
        drop(f"{name}.weight_scale_2", f"{name}.input_scale"),
        put(f"{name}.weight", Tensor("F8_E4M3", (rows, columns), b"\x38" * (rows * columns))),
        put(f"{name}.weight_scale", Tensor("U8", (rows, columns // 32), b"\x7f" * (rows * columns // 32))),
    )


LARGE = grown(30 * 10**9)
CASES = [
    Case("TP01", "four-gpus", serve(f"{VLLM} {TP} 4"), "TP01 TP11i", place="down_proj"),
    Case("TP01", "ct", serve(f"{SGLANG} --tp 4"), "TP01 TP11i", base="llama-ct-nvfp4", place="down_proj"),
    Case("TP01", "w4a16", serve(f"{TRTLLM} --tp_size 4"), "TP01", base="llama-w4a16", place="down_proj"),
    Case("TP02", "quark", serve(f"{VLLM} {TP}=2"), "TP02", base="llama-mxfp4", place="down_proj"),
    Case("TP02", "kimi", serve(f"{ATOM} -tp 2"), "TP02 TP06w", base="kimi-mxfp4", place="down_proj"),
    Case("TP02", "ct", serve(f"{VLLM} {TP} 2"), "TP02", base="llama-ct-mxfp4", place="down_proj"),
    Case(
        "TP03",
        "cutlass",
        serve(f"{VLLM} -tp 1 --moe-backend cutlass"),
        "TP03 TP04i TP11i",
        base="mixture-nvfp4",
        place="expert",
    ),
    Case("TP03", "any", serve(f"{VLLM} {TP} 1"), "TP03w TP04i TP11i", base="mixture-ct-nvfp4"),
    Case(
        "TP04",
        "hidden",
        plain(f"{EXPERT}.up_proj", 32, 80),
        "CN16w NM04 TP04w",
        base="mixture-nvfp4",
        level="headers",
        place="expert",
    ),
    Case(
        "TP05",
        "width",
        mxfp8(f"{EXPERT}.up_proj", 24, 64),
        "CN16w FU06 NM08w TP05",
        base="mixture-nvfp4",
        level="headers",
        place="up_proj",
    ),
    Case("TP06", "atom", serve(f"{ATOM} -tp 1"), "TP06w", base="mixture-mxfp4", place="expert"),
    Case("TP07", "heads", serve(f"{VLLM} {TP} 3"), "TP01 TP07 TP11i", place="num_attention_heads"),
    Case("TP07", "experts", serve(f"{SGLANG} --ep-size 3"), "TP07", base="mixture-nvfp4", place="README.md"),
    Case(
        "TP07", "uneven", serve(f"{VLLM} -tp 3 --enable-expert-parallel"), "LC12w TP02 TP07 TP07w", base="kimi-ct-mxfp4"
    ),
    Case("TP08", "old", serve(VLLM, "pip install vllm==0.17.1\n"), "TP08", base="llama-w4a16", place="README.md"),
    Case("TP08", "one-model", serve(VLLM), "TP08", base="gpt-oss-nvfp4", place="README.md", level="headers"),
    Case("TP08", "unknown", serve(TRTLLM), "TP08w", base="llama-mxfp4", place="README.md"),
    Case(
        "TP09",
        "small",
        each(LARGE, serve(f"{VLLM} {TP} 2", "On 2x RTX 3090.\n")),
        "TP01w TP07w TP09w TP11i TP14i",
        level="headers",
    ),
    Case("TP11", "tiles", serve(f"{VLLM} {TP} 2"), "TP11i"),
    Case(
        "TP12",
        "squares",
        each(squares(DOWN, 64, 96), serve(f"{VLLM} {TP} 2")),
        "NM07 NM08 NM12 TP10 TP11i TP12",
        level="headers",
        place="down_proj",
    ),
    Case("TP13", "gate-per-head", plain(GATE, 4, 1024), "NM12 TP13w", level="headers", place="g_proj"),
    Case("TP14", "node", LARGE, "TP01w TP07w TP11i TP14i", level="headers"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("a command for a size that divides", "llama-mxfp4", serve(f"{VLLM} {TP} 1 --port 8001")),
    ("a size in prose", "llama-nvfp4", serve(VLLM, f"Use `{TP} 8` on larger models.\n")),
    ("weights that fit", "mixture-mxfp4", serve(VLLM, "Tested on 1x B300 and 8\u00d7 MI350X.\n")),
]
