"""Licences of models, cut down to the phrases a reader would know them by; standard texts come from identify."""

from __future__ import annotations

from collections.abc import Callable

from identify.vendor.licenses import LICENSES

from tests.builders.tiny import Tiny, compressed, kimi, llama, mxfp4, nvfp4

STANDARD = {identifier.lower(): text for identifier, text in LICENSES}
MIT = STANDARD["mit"]
MODIFIED = (
    "\nOur only modification part is that, if the Software (or any derivative works thereof) is used for\n"
    "any of your commercial products or services that have more than 100 million monthly active users, or\n"
    'more than 20 million US dollars in monthly revenue, you shall prominently display "{}" on its interface.\n'
)
KIMI = f"Modified MIT License\n\n{MIT}{MODIFIED.format('Kimi K2.6')}"
LLAMA_NOTICE = (
    "Llama 3.3 is licensed under the Llama 3.3 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
LLAMA = f"**LLAMA 3.3 COMMUNITY LICENSE AGREEMENT**\n\nabout the Llama Materials: “{LLAMA_NOTICE}”\n"
QWEN_NOTICE = "Qwen is licensed under the Qwen RESEARCH LICENSE AGREEMENT, Copyright (c) Tiny Laboratory."
QWEN = (
    f'Qwen RESEARCH LICENSE AGREEMENT\nFOR NON-COMMERCIAL PURPOSES ONLY; keep the notice\n"{QWEN_NOTICE}"; and so on\n'
)
POLICY = "See the Llama 3.3 Acceptable Use Policy."

Pair = tuple[Tiny, Tiny]


def licensed(pair: Pair, text: str, licence: str, body: str, notice: str = "", form: bool = False) -> Pair:
    """The pair under other terms: text and card of both, and what a publisher has to add."""
    source, result = pair
    for tiny in pair:
        tiny.files["LICENSE"] = text.encode()
        card = tiny.files["README.md"].decode().replace("license: apache-2.0", licence)
        tiny.files["README.md"] = card.encode()
    if form:
        card = source.files["README.md"].decode().replace(licence, f"{licence}\nextra_gated_prompt: Accept the terms.")
        source.files["README.md"] = card.encode()
    if notice:
        result.files["NOTICE"] = f"{notice}\n".encode()
    result.files["README.md"] += f"\n{body}\n".encode()
    return pair


def community(pair: Pair) -> Pair:
    """Under the Llama 3.3 Community License, gated, with a name, a credit and a notice as it asks."""
    made = licensed(pair, LLAMA, "license: llama3.3", f"**Built with Llama**\n\n{POLICY}", LLAMA_NOTICE, form=True)
    made[1].files["README.md"] = made[1].files["README.md"].replace(b"# Tiny in four bits", b"# Llama-Tiny-NVFP4")
    return made


def other(name: str) -> str:
    return f"license: other\nlicense_name: {name}\nlicense_link: LICENSE"


LICENSED: dict[str, Callable[[], Pair]] = {
    "llama-nvfp4-community": lambda: (s := llama(), community((s, nvfp4(s))))[1],
    "kimi-mxfp4-modified-mit": lambda: (
        s := kimi(),
        licensed((s, mxfp4(s)), KIMI, other("modified-mit"), 'Large products must display "Kimi K2.6".'),
    )[1],
    "llama-ct-research": lambda: (
        s := llama(),
        licensed(
            (s, compressed(s, "nvfp4")),
            QWEN,
            other("qwen-research"),
            "Quantized. Improved using Qwen. No commercial use.",
            QWEN_NOTICE,
        ),
    )[1],
}
