"""Which modules a card calls quantized or kept, against how the shards store them.

Read are lists under a lead such as `Kept at BF16:`, rows of two-column tables with such a label, and sentences such as
`attention and lm_head remain BF16`. Words in brackets explain and claim nothing. A claim about modules that the
checkpoint does not have is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from publisher.claims.document import Document, Sentence
from publisher.claims.facts import CONFIG, HEADERS, Facts
from publisher.claims.finding import STATEMENT, Doubt, doubt
from publisher.findings import ERROR, INFO

# What cards call the modules of a role.
ROLES = {
    "router": re.compile(r"\b(?:MoE |expert )?(?:routers?|gating (?:layers?|networks?))\b|\bmlp\.gate\b(?!_)", re.I),
    "shared_expert": re.compile(r"(?<!non-)(?<!non )\bshared[-_ ]experts?\b", re.I),
    "expert": re.compile(
        r"\brouted[- ]experts?\b|\bMoE experts?\b|\bnon-shared (?:MoE )?experts?\b|\bmlp\.experts\b"
        r"|\bexpert (?:weights|linears?)\b",
        re.I,
    ),
    "attention": re.compile(r"\bself_attn\b|\b(?:self-)?attention\b|\bMLA\b", re.I),
    "head": re.compile(r"\blm_head\b|\boutput head\b", re.I),
    "embedding": re.compile(r"\bembed_tokens\b|\b(?:token )?embeddings?\b", re.I),
    "vision": re.compile(r"\bvision[_ ](?:tower|encoder|model)\b|\bMoonViT\b|\bViT\b", re.I),
    "projector": re.compile(r"\bmm_projector\b|\b(?:multi-?modal |vision )?projector\b", re.I),
    "mtp": re.compile(r"\bMTP\b|\bnextn\b|\bmulti-token[- ]prediction\b", re.I),
    "mlp": re.compile(r"\b(?:dense|layer-0|layer 0) (?:dense )?(?:MLPs?|FFNs?|layers?)\b", re.I),
}
_NAMES = {
    "router": "routers", "shared_expert": "shared experts", "expert": "routed experts", "attention": "attention layers",
    "head": "output head", "embedding": "embeddings", "vision": "vision layers", "projector": "projector layers",
    "mtp": "multi-token-prediction layers", "mlp": "dense MLP layers",
}  # fmt: skip
_KEPT_LABEL = re.compile(
    r"(?:(?:layers?|modules?|weights?|parts?|operators?) )?(?:kept|excluded?|exclusions?|uncompressed"
    r"|unquantized|not quantized|left|ignored?)"
    r"(?: (?:layers?|modules?|weights?|parts?|from quant\w*|at|in|as|BF16|bf16|FP16|unquantized"
    r"|full precision))*(?: \([^()]{0,40}\))?",
    re.I,
)
_QUANTIZED_LABEL = re.compile(
    r"quantized(?: \+ sparsified)?(?: (?:layers?|modules?|weights?|to (?:NV|MX)?FP4|parts?"
    r"|operators?))*(?: \([^()]{0,40}\))?",
    re.I,
)
_STAY = re.compile(
    r"(?:^|[:,] |\b(?:and|but|while|whereas) )(?P<subject>[^:]{2,300}?),?\s(?:all )?(?:remain|remains|stay"
    r"|stays|(?:is|are|were)(?: also| all)?(?: kept| left)?|kept|left)"
    r"(?: in| at| as)? (?:BF16|bfloat16|FP16|unquantized|full precision|higher precision|their original precision)\b"
)
_UNQUANTIZED = re.compile(r"(?P<subject>[^:]{2,300}?)\s(?:is|are|were) (?:not|never) quantized\b")
_KEEP = re.compile(
    r"\b(?:keep|keeps|kept|leave|leaves|left)\s(?P<subject>[^:]{2,300}?)\s(?:out of (?:NV|MX)?(?:FP4"
    r"|quantization)|(?:in|at) (?:BF16|FP16|full precision)|unquantized)\b",
    re.I,
)
_ARE = re.compile(r"(?P<subject>[^:]{2,300}?)\s(?:is|are|were|being) (?:all )?quantized\b(?! (?:by|with|from|cache))")
_BRACKETS = re.compile(r"\([^()]{0,200}\)")
_REST = re.compile(
    r"\b(?:other than|except(?: for)?|besides|apart from|but not|excluding|not including|rather than|without)\b"
)
_ONLY = re.compile(r"\bonly\b", re.I)
_OTHER = re.compile(r"\b(?:upstream reference|baseline|KV[- ]cache (?:is|are))\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A claim that the modules of a role are stored quantized, or kept."""

    role: str
    quantized: bool
    every: bool
    sentence: Sentence


def stored(document: Document) -> Iterator[Stored]:
    """What the card says of how modules are stored."""
    seen: set[tuple[str, bool, int]] = set()
    for sentence in document.sentences:
        for subject, quantized in _subjects(sentence):
            positive = _REST.split(subject)[0]
            for role, pattern in ROLES.items():
                if pattern.search(positive) and (role, quantized, sentence.line) not in seen:
                    seen.add((role, quantized, sentence.line))
                    every = re.match(r"\s{0,3}all\b", positive, re.I) is not None
                    yield Stored(role=role, quantized=quantized, every=every, sentence=sentence)


def _subjects(sentence: Sentence) -> Iterator[tuple[str, bool]]:
    """The words that name modules, and whether they are called quantized."""
    label, heading = sentence.label.strip(" *"), sentence.heading.strip(" :*")
    text = _bare(sentence.text)
    if _OTHER.search(text):
        return
    if _KEPT_LABEL.fullmatch(label) or (not label and _KEPT_LABEL.fullmatch(heading)):
        yield text, False
        return
    if _QUANTIZED_LABEL.fullmatch(label) or (not label and _QUANTIZED_LABEL.fullmatch(heading)):
        yield text, True
        return
    for pattern, quantized in ((_STAY, False), (_UNQUANTIZED, False), (_KEEP, False), (_ARE, True)):
        match = pattern.search(text)
        if match is not None:
            yield match.group("subject"), quantized
            return


def _bare(text: str) -> str:
    """Without what stands in brackets, two levels deep."""
    return " ".join(_BRACKETS.sub(" ", _BRACKETS.sub(" ", text[:2000])).split())


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Claims that the shards contradict, and claims about routers that no declaration or engine bears out."""
    if not facts.quantized:
        return
    for claim in stored(document):
        quantized, kept = facts.roles.get(claim.role, (0, 0))
        if not quantized and not kept:
            continue
        yield from _against(claim, facts, quantized, kept)


def _against(claim: Stored, facts: Facts, quantized: int, kept: int) -> Iterator[Doubt]:
    sentence, noun, total = claim.sentence, _NAMES[claim.role], quantized + kept
    step = "Correct the card, or the checkpoint"
    if not claim.quantized and quantized and (not kept or claim.role not in ("mlp", "head", "vision")):
        fact = f"{quantized:,} of {total:,} {noun} are stored quantized ({HEADERS})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, step, ERROR)
    elif claim.quantized and not quantized:
        fact = f"all {kept:,} {noun} are stored unquantized ({HEADERS})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, step, ERROR)
    elif claim.quantized and claim.every and kept:
        fact = f"{kept:,} of {total:,} {noun} are stored unquantized ({HEADERS})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, step, ERROR)
    elif claim.role == "router" and claim.quantized:
        fact = "vLLM, SGLang, TensorRT-LLM and ATOM build routers unquantized and cannot load them so"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Store the routers as the source has them", ERROR)
    elif claim.role == "router" and not quantized:
        unlisted = facts.unlisted("router")
        if unlisted and facts.quant is not None:
            fact = f"so they are stored, but the exclude list ({CONFIG}), by which some engines decide, names "
            fact += f"{kept - unlisted:,} of {kept:,}"
            yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Name the routers in the list", INFO)
