"""Numbers that a card gives of a checkpoint, against its headers and its configuration.

Judged are shards, bytes, parameters, tensors, quantized modules, layers, experts, heads, vocabulary, context length,
group sizes and every `key=value` whose key the configuration has; numbers of one thing that the files do not tell are
compared with one another. A sentence about another model (its source, a baseline) is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from publisher.claims.counts import COUNTS
from publisher.claims.document import Document, Sentence
from publisher.claims.facts import CONFIG, HEADERS, Facts
from publisher.claims.figures import ABOUT, NUMBER, Interval, interval, value_of
from publisher.claims.finding import NUMBER as TOPIC
from publisher.claims.finding import Doubt, doubt

# Words of a sentence that speaks of something else than this checkpoint.
OTHERS = re.compile(
    r"\b(?:source(?:'s)?|upstream|original(?:ly)?|base(?:line)?|reference|versus|vs|than|compared|INT4"
    r"|int4|BF16 (?:model|"
    r"weights|checkpoint)|unquantized model|future|would|could|instead|GPTQ|AWQ)\b",
    re.I,
)
_UNITS = {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_TWIN = {"kB": "KiB", "KB": "KiB", "MB": "MiB", "GB": "GiB", "TB": "TiB"}
_SCALE = {"k": 10**3, "K": 10**3, "M": 10**6, "million": 10**6, "B": 10**9, "billion": 10**9, "T": 10**12}
_SCALE |= {"trillion": 10**12, "": 1}
_SIZE = re.compile(
    ABOUT + NUMBER + r"\s{0,2}(?P<unit>[kKMGT]i?B)\b(?!\s{0,2}/|\s+(?:per|HBM|of (?:GPU|host|device|memory)|each))"
)
_STORED = re.compile(
    r"\b(?:storage|checkpoint size|model size|size on disk|disk (?:size|space|usage)|download size"
    r"|total size|on disk)\b",
    re.I,
)
# A size that is asked for, or that two checkpoints are compared by.
_WANTED = re.compile(
    r"\b(?:at least|needs?|requires?|required|free|recommended|minimum|reduc\w{1,6}|shrinks?|shrunk|saves?"
    r"|smaller|larger"
    r"|down to|from)\b",
    re.I,
)
_SHARDS = re.compile(
    ABOUT + NUMBER + r"(?:\s{1,3}|-)(?:safetensors[ -]|weight[ -])?(?:shards?\b|shard files\b|safetensors files\b)"
)
_PARAMETERS = re.compile(
    ABOUT + NUMBER + r"\s{0,2}(?P<unit>T|B|M|K|trillion|billion|million)?\s{0,2}(?:total\s{1,3})?(?:param(?:eter)?s\b)"
)
_LABELLED_PARAMETERS = re.compile(ABOUT + NUMBER + r"\s{0,2}(?P<unit>T|B|M|trillion|billion|million)\b")
_EXACT_PARAMETERS = re.compile(r"\((?P<about>)(?P<number>\d{1,3}(?:,\d{3}){2,6})\)")
_PARAMETER_LABEL = re.compile(r"(?:total |number of |model )?(?:model )?param(?:eter)?s?(?: count)?|model size", re.I)
_PRODUCT = re.compile(r"(?P<whole>\d[\d,]{0,14})\s{0,3}=\s{0,3}(?P<rest>\d[^=\n]{3,120})")
_FACTOR = re.compile(
    r"\s{0,2}(\d[\d,]{0,11})(?:\s[A-Za-z][A-Za-z "
    r"-]{0,30}?)?\s{0,2}(?P<by>[\u00d7x*\u00b7]|\u0e23\u2014|\u00c3\u2014)(?=\s{0,2}\d)"
)
_LAST = re.compile(r"\s{0,2}(\d[\d,]{0,11})(?![\d.]*%)")
_KEY = re.compile(
    r"(?<![\w.-])([a-z][a-z0-9]{0,20}(?:_[a-z0-9]{1,20}){1,5})\s{0,2}[=:]\s{0,2}(\d[\d,]{0,14})(?![\w.]*\d)"
)
_KEYS = {"qk_nope": "qk_nope_head_dim", "qk_rope": "qk_rope_head_dim", "v_head": "v_head_dim"}


# A count of a part of the model, or of another model beside it.
_PART = re.compile(
    r"\b(?:draft|MTP|eagle\d?|vision|encoder|ViT|projector|first|last|top|bottom|every|other|kept)\b[^,;.]{0,30}$", re.I
)
_GROUP = re.compile(
    r"\bgroup[ -]?size\s{0,2}(?:of|[:=])?\s{0,2}(?P<a>\d{1,4})\b|\bblock size\s{0,2}(?:of|[:=])?\s{0,2}(?P<b>\d{1,4})\b"
    r"|\bone (?:[\w.]{1,12} ){0,3}scale per (?P<c>\d{1,4}) (?:values|elements|weights)\b"
    r"|\b(?P<d>\d{1,4})-element (?:FP8 |E4M3 |E8M0 ){0,3}block scales?\b",
    re.I,
)
_CONTEXT = re.compile(
    r"\bcontext (?:length|window|size)\b[^.\d]{0,25}?(?P<a>\d[\d,]{0,12})\s{0,2}(?P<k>[kK]|M)?\b"
    r"|(?<![\w.])(?P<b>\d[\d,]{0,12})\s{0,2}(?P<l>[kK]|M)?,? (?:which is )?the model'?s (?:positional"
    r"|context|maximum context|maximum position) \w{1,10}"
    r"|\b(?P<c>\d[\d,]{0,12})\s{0,2}(?P<m>[kK]|M)?[ -](?:tokens? )?context (?:length|window)\b",
    re.I,
)
_TRIED = re.compile(r"\b(?:tested|evaluat|calibrat|validated|up to|served|max-model-len)")


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Every number of the card that the files contradict."""
    told: dict[str, list[tuple[int, Sentence]]] = {}
    for sentence in document.sentences:
        yield from _products(sentence)
        if OTHERS.search(sentence.whole):
            continue
        yield from _sizes(sentence, facts)
        yield from _parameters(sentence, facts)
        yield from _counts(sentence, facts, told)
        yield from _pairs(sentence, facts)
        yield from _groups(sentence, facts)
        yield from _lengths(sentence, facts)
    yield from _among_themselves(told)


def _sizes(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    shards = _SHARDS.search(sentence.text)
    count = len(facts.checkpoint.shards)
    if shards is not None and count and count not in _exact(shards):
        fact = f"the repository holds {count:,} ({HEADERS})"
        yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Correct the number of shards")
    told = shards is not None or _STORED.search(sentence.whole) is not None
    if not told or not facts.checkpoint.shards or _WANTED.search(sentence.whole):
        return
    for match in list(_SIZE.finditer(sentence.text))[: 2 if shards is None else 3]:
        unit = match.group("unit")
        scale = _UNITS.get(unit) or _BINARY.get(unit)
        if scale is None:
            continue
        meant = interval(match.group("number"), about=bool(match.group("about"))) * scale
        if any(size in meant for size in facts.sizes) or _part(facts, meant):
            continue
        total = facts.sizes[1]
        fact = f"the shards hold {_bytes(total)} ({HEADERS})"
        twin = _TWIN.get(unit)
        binary = interval(match.group("number")) * _BINARY[twin] if twin else None
        step = "Correct the size"
        if binary is not None and any(size in binary for size in facts.sizes):
            step = f"Write {twin}: {unit} counts in powers of ten"
        yield doubt(TOPIC, sentence.line, sentence.whole, fact, step)
        return


def _part(facts: Facts, meant: Interval) -> bool:
    """Whether a size is that of one shard, which cards also print."""
    return any(header.file_size in meant for header in facts.checkpoint.shards.values())


def _bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB, {size / 2**30:,.1f} GiB" if size >= 10**9 else f"{size:,} bytes"


def _exact(match: re.Match[str]) -> Interval:
    if match.group("about"):
        return interval(match.group("number"), about=True)
    return Interval(value_of(match.group("number")), value_of(match.group("number")))


def _parameters(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    if not facts.checkpoint.shards or re.search(
        r"activ|quantized to|per (?:token|expert|layer)|trainable", sentence.whole
    ):
        labelled = _PARAMETER_LABEL.fullmatch(sentence.label) if facts.checkpoint.shards else None
        if labelled is None:
            return
    label = _PARAMETER_LABEL.fullmatch(sentence.label)
    match = _LABELLED_PARAMETERS.match(sentence.text) if label else _PARAMETERS.search(sentence.text)
    exact = _EXACT_PARAMETERS.search(sentence.text) if label else None
    for found in (match, exact):
        if found is None or (found is match and not found.group("unit") and "," not in found.group("number")):
            continue
        unit = found.groupdict().get("unit") or ""
        meant = (interval(found.group("number"), about=bool(found.group("about"))) if unit else _exact(found)) * _SCALE[
            unit
        ]
        stored = sum(ref.elements for ref in facts.checkpoint.tensors.values())
        if facts.parameters in meant or stored in meant:
            continue
        fact = f"the tensors hold {facts.parameters:,} weights ({HEADERS})"
        yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Correct the number of parameters")
        return


def _counts(sentence: Sentence, facts: Facts, told: dict[str, list[tuple[int, Sentence]]]) -> Iterator[Doubt]:
    said: set[str] = set()
    for counted in COUNTS:
        for match in counted.pattern.finditer(sentence.whole):
            number = int((match.group("n") or match.groupdict().get("m") or "0").replace(",", ""))
            if not number or counted.noun in said or _PART.search(sentence.whole[: match.start()][-60:]):
                continue
            right = counted.fact(facts)
            if not right:
                told.setdefault(counted.noun, []).append((number, sentence))
            elif number not in right:
                said.add(counted.noun)
                fact = f"there are {right[0]:,} {counted.noun} ({counted.where})"
                yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Correct the number")


def _among_themselves(told: dict[str, list[tuple[int, Sentence]]]) -> Iterator[Doubt]:
    """Two numbers for one thing of which no file tells."""
    for noun, claims in told.items():
        first, place = claims[0]
        for number, sentence in claims[1:]:
            if number != first:
                fact = f"line {place.line} counts {first:,} {noun}"
                yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Keep the right one of the two")
                break


def _products(sentence: Sentence) -> Iterator[Doubt]:
    """`69,120 = 60 layers x 384 experts x 3 projections`."""
    whole = f"{sentence.label}: {sentence.text}" if sentence.label else sentence.text
    for match in _PRODUCT.finditer(whole):
        rest, product, factors, at = match.group("rest"), 1, 0, 0
        while (factor := _FACTOR.match(rest, at)) is not None and factors < 8:
            product *= int(factor.group(1).replace(",", ""))
            factors += 1
            at = factor.end()
        last = _LAST.match(rest, at)
        if not factors or last is None:
            continue
        product *= int(last.group(1).replace(",", ""))
        if product != int(match.group("whole").replace(",", "")):
            yield doubt(TOPIC, sentence.line, whole, f"the product is {product:,}", "Correct the sum or its parts")


def _pairs(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    for match in _KEY.finditer(sentence.whole):
        key = _KEYS.get(match.group(1), match.group(1))
        right = facts.number(key)
        if right is not None and right != int(match.group(2).replace(",", "")):
            yield doubt(TOPIC, sentence.line, match.group(0), f"{CONFIG} has {key} = {right:,}", "Correct the number")


def _groups(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    if not facts.group_sizes:
        return
    for match in _GROUP.finditer(sentence.whole):
        number = int(next(group for group in match.groups() if group))
        if number not in facts.group_sizes:
            sizes = ", ".join(map(str, sorted(facts.group_sizes)))
            fact = f"blocks hold {sizes} weights ({HEADERS} and the declaration)"
            yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Correct the group size")
            return


def _lengths(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    right = facts.number("max_position_embeddings", "max_sequence_length", "seq_length")
    match = _CONTEXT.search(sentence.whole)
    if right is None or match is None:
        return
    digits = match.group("a") or match.group("b") or match.group("c")
    unit = (match.group("k") or match.group("l") or match.group("m") or "").lower()
    number = int(digits.replace(",", ""))
    meant = {"": (number,), "k": (number * 1000, number * 1024), "m": (number * 10**6, number << 20)}[unit]
    if right in meant or (unit and any(abs(right - one) < 1000 for one in meant)):
        return
    if _TRIED.search(sentence.whole) and not match.group("b"):
        return
    fact = f"{CONFIG} has max_position_embeddings = {right:,}"
    yield doubt(TOPIC, sentence.line, sentence.whole, fact, "Correct the context length")
