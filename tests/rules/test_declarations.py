"""Which engines a flaw of a declaration breaks, and which of them refuse to load it: as their readers are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.edits import Edit, body, each, file, later, quant
from tests.rules.compressed_cases import MLP, groups, sparsity, weights
from tests.rules.config_cases import auto_round
from tests.rules.modelopt_cases import both, no_inputs
from tests.rules.test_cases import check

ALL = "vllm sglang tensorrt-llm atom transformers"
CT, QUARK, MIXED = "llama-ct-nvfp4", "llama-mxfp4", "mixture-mixed"

no_map = both(lambda q: q.pop("quantized_layers", None))

ROWS: list[tuple[str, str, str, Edit, str, str]] = [
    # code, what, base, edit, engines that break, those of them that refuse
    ("CF01", "file-only", "llama-nvfp4", lambda tiny: tiny.config.pop("quantization_config"), "atom transformers", "*"),
    (
        "CF01",
        "old-key",
        CT,
        lambda tiny: tiny.config.update(compression_config=tiny.config.pop("quantization_config")),
        "tensorrt-llm atom transformers",
        "*",
    ),
    ("CF02", "known-alias", "llama-nvfp4", quant(lambda q: q.update(quant_method="modelopt_fp4")), "", ""),
    ("CF02", "unknown-alias", CT, quant(lambda q: q.update(quant_method="compressed_tensors")), ALL, "*"),
    ("CF04", "no-file", "llama-nvfp4", lambda tiny: setattr(tiny, "hf_quant_config", None), "", ""),
    ("CF05", "not-obeyed", "llama-nvfp4", body(lambda b: b.pop("group_size")), "", ""),
    (
        "CF05",
        "obeyed",
        "llama-nvfp4",
        each(lambda tiny: tiny.config.pop("quantization_config"), body(lambda b: b.pop("group_size"))),
        "vllm sglang",
        "*",
    ),
    ("CF06", "file", "llama-nvfp4", body(lambda b: b.update(group_size=32)), "tensorrt-llm", "*"),
    ("CF07", "twice", CT, quant(lambda q: q["ignore"].append("lm_head")), "", ""),
    (
        "CF12",
        "no-map",
        MIXED,
        both(lambda q: q.pop("quantized_layers", None)),
        "vllm sglang tensorrt-llm",
        "vllm sglang",
    ),
    ("CF13", "never-calibrated", "llama-nvfp4", no_inputs, "vllm sglang", ""),
    ("CF15", "argument", CT, weights(unknown=1), "vllm sglang transformers", "*"),
    ("CF15", "block", CT, quant(lambda q: q.update(quantization_status="done")), "transformers", "*"),
    ("CF18", "targets", CT, sparsity(targets=["Linear"]), "vllm", "*"),
    ("CF18", "no-targets", CT, sparsity(format="dense"), "", ""),
    ("CF19", "class-and-names", CT, groups("Linear", MLP), "tensorrt-llm", "*"),
    ("CF19", "class-twice", CT, groups("Linear", "Linear"), "vllm sglang tensorrt-llm", "tensorrt-llm"),
    ("CF21", "export", QUARK, quant(lambda q: q.pop("export")), "vllm sglang", "*"),
    ("CF28", "nvfp4", CT, auto_round("nv_fp", "auto_round:llm_compressor"), "vllm", "*"),
    ("CF29", "nan", "llama-nvfp4", file("generation_config.json", b'{"temperature": NaN}'), "", ""),
    ("CF29", "text", "llama-nvfp4", file("generation_config.json", b"temperature: 1"), ALL, "*"),
    (
        "CF29",
        "mark",
        CT,
        later(lambda at: (at / "config.json").write_bytes(b"\xef\xbb\xbf" + (at / "config.json").read_bytes())),
        ALL,
        "*",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_a_flaw_breaks_the_engines_that_read_it(row: tuple[str, str, str, Edit, str, str], tmp_path: Path) -> None:
    code, _, base, edit, breaks, refuses = row
    found = next(finding for finding in check(tmp_path, base, edit, "headers").findings if finding.code == code)
    assert " ".join(found.engines) == breaks
    assert " ".join(found.refuses) == (breaks if refuses == "*" else refuses)
