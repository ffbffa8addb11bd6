"""LC: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from pathlib import Path

from tests.builders.edits import Edit, card, file, listed
from tests.rules.cases import FULL, Case

CASES = [
    Case(
        "LC01",
        "one-byte",
        file("LICENSE", b"Tiny Licence\nCopyright (c) Somebody \xe9\nPermission is hereby granted.\n"),
        "LC01",
        place="LICENSE",
    ),
    Case("LC01", "nested-lost", file("legal/NOTICE.txt", None), "LC01", place="legal/NOTICE.txt"),
    Case("LC02", "other-licence", card("license: apache-2.0", "license: mit"), "LC02", place="README.md"),
    Case("LC02", "none", card("license: apache-2.0\n", ""), "LC02", place="README.md"),
    Case("LC03", "relation", card("quantized", "finetune"), "LC03", place="README.md"),
    Case("LC03", "path", card("base_model: tiny/tiny", "base_model: ./tiny"), "LC03", place="README.md"),
    Case("LC03", "another", card("base_model: tiny/tiny", "base_model: tiny/other"), "LC03", place="README.md"),
    Case("LC03", "no-card", file("README.md", None), "LC02 LC03", evidence=FULL),
    Case("LC03", "no-front-matter", file("README.md", b"# Tiny\n"), "LC02 LC03 SD16w"),
    Case("LC06", "field-type", card("I agree: checkbox", "I agree: tickbox"), "LC06", place="README.md"),
    Case("LC06", "no-options", card("    options: [Research, {label: Something else, value: other}]\n", ""), "LC06"),
    Case("LC14", "edited", listed(lambda at: _append(at / "tokenizer.json")), "LC14 SD01", place="tokenizer.json"),
    Case("LC14", "same-size", listed(lambda at: _flip(at / "LICENSE")), "LC01 LC14", place="LICENSE"),
    Case("LC14", "lost", listed(lambda at: (at / "generation_config.json").unlink()), "LC14 SD01"),
    Case("LC14", "added", listed(lambda at: (at / "notes.txt").write_text("x")), "LC14", place="notes.txt"),
    Case("LC14", "no-manifest", file("publish.json", b"{}"), "LC14", place="publish.json"),
    Case("LC06", "gate-open", lambda tiny: None, "LC06", evidence={"gate": "manual", "settings": {"gated": False}}),
    Case("LC06", "form-without-gate", lambda tiny: None, "LC06w", evidence={"settings": {"gated": False}}),
]

LEGITIMATE: list[tuple[str, str, Edit]] = []


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x20
    path.write_bytes(data)
