"""What a card says of formats: weights, scales, activations, KV cache, layout; against headers and declaration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from publisher.claims.document import Document, Sentence
from publisher.claims.facts import CONFIG, HEADERS, Facts
from publisher.claims.finding import STATEMENT, Doubt, doubt
from publisher.claims.numbers import OTHERS
from publisher.findings import ERROR, INFO

_FORMATS = {"nvfp4": "NVFP4", "mxfp4": "MXFP4", "int4": "INT4", "fp8": "FP8", "mxfp8": "MXFP8"}
_WEIGHT_LABEL = re.compile(
    r"(?:model )?(?:weights?(?: format| dtype| quantization| precision| data type)?|quantization(?: format"
    r"| scheme| type)?|compression scheme|precision|format)",
    re.I,
)
_FIRST_FORMAT = re.compile(r"\s{0,3}(?:OCP )?(NVFP4|MXFP4|INT4|MXFP8|FP8|W4A16|W4A4)\b", re.I)
_TO = re.compile(
    r"\bquanti[sz]\w{1,6}\b[^.]{0,160}?\bto (NVFP4|MXFP4|INT4|INT8|MXFP8|FP8)\b(?! (?:E4M3 )?(?:KV|key"
    r"|cache|for the KV))",
    re.I,
)
_WIDTHS = re.compile(r"\b(W4A4|W4A16)\b")
_CODES = re.compile(
    r"\b(?:(?P<a>E4M3|E8M0)(?: \w{1,8}){0,2} (?:block |group |weight )?scales?\b|(?:block|group"
    r"|weight) scales?(?: dtype| format)?(?: in|:| are| is)? (?:FP8 )?(?P<b>E4M3|E8M0)\b)",
    re.I,
)
# What else a format is named for, and what is only offered.
_ASIDE = re.compile(r"\bKV\b|\bcache\b|\bdraft\b", re.I)
_OFFERED = re.compile(
    r"\boptional|\bcan be\b|\brecommended\b|--kv|\bwhen serv|\bat (?:serve|serving|run) ?time\b", re.I
)
_CACHE_LABEL = re.compile(r"KV[- ]?cache(?: (?:dtype|format|quantization|precision|mode))?|key[- ]value cache", re.I)
_NO_CACHE = re.compile(r"\s{0,3}(?:not quantized|unquantized|none|BF16|FP16|bfloat16|auto|no\b)", re.I)
_FP8_CACHE = re.compile(r"\s{0,3}(?:static |dynamic )?(?:FP8|fp8|E4M3)")
_WITH_CACHE = re.compile(r"\bquanti[sz]ed\b[^.;]{0,120}\bwith an? FP8 KV[- ]cache\b")
_CACHE_FLAG = re.compile(r"--kv[-_]cache[-_]dtype[ =]+fp8")
_DYNAMIC = re.compile(r"\bdynamic (?:NVFP4 |FP4 |per-tensor )?(?:input|activation)s? scales?\b", re.I)
_CALIBRATED = re.compile(r"\b(?:calibrated|static)(?: FP32)?(?: per-tensor)? (?:input|activation)s? scales?\b", re.I)
_ACTIVATION_LABEL = re.compile(r"activations?(?: format| dtype| quantization)?", re.I)
_LAYOUT_LABEL = re.compile(r"(?:checkpoint |quantization )?(?:format|layout|quant[-_ ]method)", re.I)
_LAYOUTS = re.compile(r"\b(compressed-tensors|modelopt|quark|auto-round)\b", re.I)


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Every statement about a format that the files contradict."""
    if facts.quant is None:
        return
    served = any(_CACHE_FLAG.search(block.text) for block in document.blocks)
    for sentence in document.sentences:
        yield from _activations(sentence, facts)
        if OTHERS.search(sentence.whole):
            continue
        yield from _weights(sentence, facts)
        yield from _scales(sentence, facts)
        yield from _cache(sentence, facts, served)
        yield from _layout(sentence, facts)


def _weights(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    stored = facts.format
    if stored not in ("nvfp4", "mxfp4"):
        return
    label = _WEIGHT_LABEL.fullmatch(sentence.label)
    if _ASIDE.search(sentence.whole):
        return
    match = _FIRST_FORMAT.match(sentence.text) if label else _TO.search(sentence.whole)
    said = match.group(1).lower() if match is not None else None
    quant = facts.quant
    if said in _FORMATS and said != stored and quant is not None:
        fact = f"weights are stored as {_FORMATS[stored]} ({quant.origin})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the format")
    widths = _WIDTHS.search(sentence.whole)
    if widths is not None and quant is not None and quant.activations is not None:
        only = quant.activations == "none"
        if only == (widths.group(1) == "W4A4"):
            fact = f"activations are {'not ' if only else ''}quantized ({quant.origin})"
            yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the scheme")


def _scales(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    match = _CODES.search(sentence.whole)
    if match is None or not facts.scale_codes or re.search(r"\bKV\b|\b[kK]ey", sentence.whole):
        return
    if (match.group("a") or match.group("b")).upper() not in facts.scale_codes:
        fact = f"block scales are stored as {' and '.join(sorted(facts.scale_codes))} ({HEADERS})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the scales' format")


def _cache(sentence: Sentence, facts: Facts, served: bool) -> Iterator[Doubt]:
    quant = facts.quant
    if quant is None or _OFFERED.search(sentence.text):
        return
    cache = (quant.kv_cache or "none").lower()
    labelled = _CACHE_LABEL.fullmatch(sentence.label) is not None
    says_none = labelled and _NO_CACHE.match(sentence.text) is not None
    says_fp8 = (labelled and _FP8_CACHE.match(sentence.text)) or _WITH_CACHE.search(sentence.whole)
    if says_none and cache.startswith("fp8"):
        fact = f"an FP8 cache is declared ({quant.origin})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the card, or the declaration")
    elif says_fp8 and cache == "none" and not facts.cache_scales and not served:
        fact = f"no quantized cache is declared ({quant.origin}) and no scale of one is stored ({HEADERS})"
        yield doubt(
            STATEMENT, sentence.line, sentence.whole, fact, "Say that the cache is not quantized, or how to ask for it"
        )
    elif says_fp8 and cache not in ("none", "auto") and not cache.startswith("fp8"):
        fact = f"the cache is declared as {cache[:40]} ({quant.origin})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the card, or the declaration")


def _activations(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    quant = facts.quant
    if quant is None or not facts.quantized:
        return
    whole, stored = sentence.whole, facts.input_scales
    if _DYNAMIC.search(whole) and stored:
        fact = f"{stored:,} modules store a calibrated scale of their input ({HEADERS}); only block scales are dynamic"
        yield doubt(STATEMENT, sentence.line, whole, fact, "Say that the tensor's scale is stored", INFO)
    elif _CALIBRATED.search(whole) and not stored and not OTHERS.search(whole):
        fact = f"no module stores a scale of its input ({HEADERS})"
        yield doubt(STATEMENT, sentence.line, whole, fact, "Correct the card", ERROR)
    elif _ACTIVATION_LABEL.fullmatch(sentence.label):
        none = re.match(r"\s{0,3}(?:not quantized|none|BF16|FP16|unquantized)", sentence.text, re.I)
        four = re.match(r"\s{0,3}(?:NVFP4|MXFP4|FP4)", sentence.text)
        if none is not None and quant.activations in ("static", "dynamic"):
            fact = f"quantized activations are declared ({quant.origin})"
            yield doubt(STATEMENT, sentence.line, whole, fact, "Correct the card, or the declaration")
        elif four is not None and quant.activations == "none":
            fact = f"no quantized activations are declared ({quant.origin})"
            yield doubt(STATEMENT, sentence.line, whole, fact, "Correct the card, or the declaration")


def _layout(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    quant = facts.quant
    named = {match.group(1).lower() for match in _LAYOUTS.finditer(sentence.text)}
    if quant is None or not _LAYOUT_LABEL.fullmatch(sentence.label) or len(named) != 1:
        return
    if quant.dialect in ("compressed-tensors", "modelopt", "quark") and quant.dialect not in named:
        fact = f"the layout is {quant.dialect} ({quant.origin.partition(':')[0] or CONFIG})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Correct the layout's name")
