"""LC: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

from pathlib import Path

from tests.builders.edits import Edit, card, file, listed
from tests.builders.tiny import Tiny
from tests.rules.cases import FULL, Case


def prose(text: str, encoding: str = "utf-8") -> Edit:
    """A card that says this too."""

    def edit(tiny: Tiny) -> None:
        tiny.files["README.md"] += f"\n{text}\n".encode(encoding)

    return edit


def _pass_over_more(folder: Path) -> None:
    """A manifest that names another file to be left out would let it change unseen."""
    path = folder / "publish.json"
    path.write_text(path.read_text().replace('".gitattributes"', '".gitattributes", "LICENSE"'))


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
    Case("LC14", "passes-over-more", listed(_pass_over_more), "LC14", place="publish.json"),
    Case("LC14", "no-manifest", file("publish.json", b"{}"), "LC14", place="publish.json"),
    Case("LC06", "gate-open", lambda tiny: None, "LC06", evidence={"gate": "manual", "settings": {"gated": False}}),
    Case("LC06", "form-without-gate", lambda tiny: None, "LC06w", evidence={"settings": {"gated": False}}),
]

CASES += [
    Case("LC08", "no-tags", card("tags: [fp4, quantized]\n", ""), "LC08w", place="README.md"),
    Case("LC08", "no-task", card("pipeline_tag: text-generation\n", ""), "LC08w", base="llama-mxfp4"),
    Case("LC08", "library-of-no-name", card("library_name: transformers", "library_name: []"), "LC08w"),
    Case("LC09", "thai", prose("Kept in BF16 \u0e42\u20ac\u201d the same split."), "LC09", place="README.md"),
    Case("LC09", "western", prose("It\u00e2\u20ac\u2122s 4\u00c3\u2014 smaller."), "LC09", base="llama-ct-mxfp4"),
    Case("LC09", "lost", prose("Moonshot\ufffds model"), "LC09"),
    Case("LC09", "not-utf-8", prose("Moonshot\u2019s model", "cp1252"), "LC02 LC03 LC09", place="README.md"),
    Case("LC09", "unclosed-metadata", file("README.md", b"---\nlicense: mit\n# Tiny\n"), "LC02 LC03 LC09 LC10w"),
    Case("LC09", "metadata-no-mapping", file("README.md", b"---\n- mit\n---\n# Tiny\n"), "LC02 LC03 LC09 SD16w"),
    Case("LC09", "unrendered", prose("Quantized from {{ base_model }}."), "LC09", place="README.md"),
    Case("LC09", "statement", prose("{% include 'serving.j2' %}"), "LC09"),
    Case("LC09", "template-of-the-hub", prose("**Developed by:** [More Information Needed]"), "LC09"),
    Case("LC09", "to-do", prose("## Evaluation\n\nTODO: numbers"), "LC09", base="llama-mxfp4"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    (
        "a-template-in-code",
        "llama-nvfp4",
        prose("```jinja\n{% if tools %}{{ tools }}{% endif %}\n```\nand `{{ bos }}`."),
    ),
    ("braces-of-bibtex", "llama-nvfp4", prose("title = {{Kimi K2}}, and $\\frac{{a}}{{b}}$")),
    ("a-to-do-list", "llama-nvfp4", prose("An app that keeps a TODO list. <!-- TODO: shorten -->")),
    (
        "other-languages",
        "llama-nvfp4",
        prose(
            "\u0e01\u0e32\u0e23\u0e42\u0e01\u0e07 \u2014 Gr\u00f6\u00dfe\u2026 \u00c9T\u00c9\u2014 \u4e2d\u6587\u3002"
        ),
    ),
]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x20
    path.write_bytes(data)
