"""What rules say of libraries, held against the libraries themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import save_file
from transformers.dynamic_module_utils import get_relative_imports

from publisher import jsonio
from publisher.checkpoint.open import open_checkpoint
from publisher.rules import load_rules, run
from publisher.subjects import Evidence

CODE = [
    "from .configuration_x import X\n",
    "from .sub.layers import (\n    A,\n    B,\n)\n",
    "import torch\nfrom transformers import AutoModel\n",
    "try:\n    from .optional import f\nexcept ImportError:\n    pass\n",
    "from .a import b\nfrom .c import d as e\n",
]


@pytest.mark.parametrize("text", CODE)
def test_imports_are_those_that_transformers_follows(text: str, tmp_path: Path) -> None:
    (tmp_path / "modeling_x.py").write_text(text + "class M: ...\n")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_x.M"}}')
    wanted = {name.replace(".", "/") + ".py" for name in get_relative_imports(tmp_path / "modeling_x.py")}
    report = run(Evidence(checkpoint=open_checkpoint(tmp_path)), level="headers", select=("SD02",))
    assert {finding.file for finding in report.findings} == wanted


def test_the_safetensors_library_writes_what_only_its_owner_can_read(tmp_path: Path) -> None:
    """Once it no longer does, the rule's precedent is history; the rule itself looks at the modes."""
    before = os.umask(0o022)
    try:
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text("{}")
    finally:
        os.umask(before)
    private = not (tmp_path / "model.safetensors").stat().st_mode & 0o044
    report = run(Evidence(checkpoint=open_checkpoint(tmp_path)), level="headers", select=("CN23",))
    assert [finding.code for finding in report.findings] == ["CN23"] * private


def test_internal_tokenizer_classes_are_transformers_own() -> None:
    """TokenizersBackend is exported as if it were a tokenizer; that is how it gets into files."""
    assert "TokenizersBackend" in jsonio.data("sidefiles/tokenizers.json")["internal"]
    assert hasattr(transformers, "TokenizersBackend")
    assert "SD11" in load_rules()
