"""LC: what licences ask of a publication; each edit forgets one duty."""

from __future__ import annotations

from typing import Any

from tests.builders.edits import Edit, card, each, file
from tests.builders.terms import KIMI, MIT, POLICY
from tests.builders.tiny import Tiny
from tests.rules.cases import Case

COMMUNITY, MODIFIED, RESEARCH = "llama-nvfp4-community", "kimi-mxfp4-modified-mit", "llama-ct-research"


def both(text: str, named: str = "apache-2.0") -> dict[str, Any]:
    """Another licence in source and result: its text and the name in the cards."""
    edit = each(file("LICENSE", text.encode()), card("license: apache-2.0", f"license: {named}"))
    return {"edit": edit, "source": edit}


def unformed(tiny: Tiny) -> None:
    """A card without the gate's form."""
    head, mark, body = tiny.files["README.md"].decode().partition("\n---\n")
    tiny.files["README.md"] = f"{head.partition('extra_gated_heading')[0].rstrip()}{mark}{body}".encode()


def unsaid(tiny: Tiny) -> None:
    """A card that says nothing of what was done to the weights."""
    head, _, _ = tiny.files["README.md"].decode().partition("\n---\n")
    tiny.files["README.md"] = f"{head}\n---\n# Tiny\n\nMade from tiny/tiny; not affiliated with its authors.\n".encode()


ADDED = MIT + "\nThe Software may not be used by any person, company or state for warfare of any kind.\n"
BY_NC, BY_ND = "CC Attribution-NonCommercial 4.0 International\n", "CC Attribution-NoDerivatives 4.0 International\n"
CASES = [
    Case("LC15", "mit-as-apache", raises="LC15w", place="LICENSE", **both(MIT)),
    Case("LC15", "modified-mit-as-apache", raises="LC15w LC19w", place="LICENSE", **both(KIMI)),
    Case("LC15", "clause-added", raises="LC15w", place="LICENSE", **both(ADDED, "mit")),
    Case("LC16", "renamed", card("# Llama-Tiny-NVFP4", "# Tiny-NVFP4"), "LC16", base=COMMUNITY),
    Case("LC16", "repository", lambda _: None, "LC16", base=COMMUNITY, evidence={"repo": "org/Tiny-Llama-FP4"}),
    Case("LC17", "no-credit", card("**Built with Llama**", ""), "LC17", base=COMMUNITY, place="README.md"),
    Case("LC17", "qwen", card(" Improved using Qwen.", ""), "LC17", base=RESEARCH, place="README.md"),
    Case("LC18", "no-file", file("NOTICE", None), "LC18", base=COMMUNITY, place="NOTICE"),
    Case("LC18", "other-words", file("NOTICE", b"Notices of parts.\n"), "LC18", base=RESEARCH, place="NOTICE"),
    Case("LC19", "unsaid", card('"Kimi K2.6"', "a name"), "LC19w", base=MODIFIED, place="README.md"),
    Case("LC19", "earlier-name", card('"Kimi K2.6"', '"Kimi K2"'), "LC19w", base=MODIFIED, place="README.md"),
    Case("LC20", "cc-by-nd", raises="LC20", place="README.md", **both(BY_ND, "cc-by-nd-4.0")),
    Case("LC21", "cc-by-nc", raises="LC21w", place="README.md", **both(BY_NC, "cc-by-nc-4.0")),
    Case("LC21", "research", card(" No commercial use.", ""), "LC21w", base=RESEARCH, place="README.md"),
    Case("LC22", "no-policy", card(POLICY, ""), "LC22", base=COMMUNITY, place="README.md"),
    Case("LC23", "unsaid", unsaid, "LC23w", place="README.md"),
    Case("LC24", "no-form", unformed, "LC24", base=COMMUNITY, place="README.md"),
    Case("LC24", "opened", lambda _: None, "LC24", base=COMMUNITY, evidence={"gate": "off"}),
    Case("LC24", "gate-of-the-source", unformed, "LC24", evidence={"source_gate": "manual"}),
    Case("LC25", "no-text", file("LICENSE", None), "LC25w", place="README.md", source=file("LICENSE", None)),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("two-licences", "llama-nvfp4", file("LICENSE-CODE", MIT.encode())),
    ("display-duty-in-other-words", MODIFIED, card('display "Kimi K2.6"', "prominently display the name Kimi K2.6")),
    ("no-commercial-use-in-other-words", RESEARCH, card("No commercial use", "It may not be used commercially")),
    ("credit-in-markdown", COMMUNITY, card("**Built with Llama**", "> _Built with\n> Llama_")),
    ("policy-as-a-file", COMMUNITY, each(card(POLICY, ""), file("USE_POLICY.md", b"Do no harm.\n"))),
    ("another-spelling-of-the-name", COMMUNITY, card("# Llama-Tiny-NVFP4", "# llama3-tiny `NVFP4`")),
]
