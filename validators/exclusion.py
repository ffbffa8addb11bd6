"""Which layers are left unquantized: what the list says, what is stored, and what each engine would build.

Codes of four families live here because they are one question: NM07, NM08 and TP10 compare readings with the tensors,
CF03 the algorithm, CF08 to CF11 and CF30 the entries as they are spelled, FU06 the members of one fused layer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from publisher import jsonio
from publisher.checkpoint.modules import Module, class_of, fused_groups
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, WARNING, Found, Severity
from publisher.matching import NoRegex, PatternError, compile_foreign
from publisher.plan.proof import moe_module
from publisher.rules import Scope, rule
from publisher.subjects import PLAIN, Headers, Modules
from publisher.subjects.exclusion import Odd, grouped
from publisher.subjects.unmatched import unmatched
from publisher.verdict import LABELS

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
OTHERS = ("sglang", "tensorrt-llm", "atom")
FEW = 20  # entries named one by one
_FILE = "config.json"


def _listed(*dialects: str) -> Callable[[Modules], bool]:
    def holds(modules: Modules) -> bool:
        quant = modules.quant
        return modules.exclusion.declared and quant is not None and quant.dialect in dialects

    return holds


ANY = Scope("exclude list over FP4 modules", _listed("modelopt", "quark", "compressed-tensors"))
MODELOPT = Scope("modelopt exclude list", _listed("modelopt"))
NAMES = Scope("Quark or compressed-tensors exclude list", _listed("quark", "compressed-tensors"))


def _read_by(*engines: str) -> Scope:
    def holds(modules: Modules) -> bool:
        exclusion = modules.exclusion
        return exclusion.declared and (not exclusion.readable or bool(set(engines) & set(exclusion.engines)))

    return Scope("list that such an engine reads for this model", holds)


def spans(layers: tuple[int, ...]) -> str:
    """Layer numbers as people write them: `0-2, 5`."""
    runs = []
    for _, run in itertools.groupby(enumerate(layers), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        runs.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0]))
    return ", ".join(runs)


def _place(odd: Odd) -> str:
    of = f" in layers {spans(odd.layers)}" if len(odd.layers) > 1 else ""
    return f"{odd.kind}{of} ({odd.modules:,} of them)" if odd.modules > 1 else odd.example


def _owner(modules: Modules) -> str:
    return modules.quant.origin.partition(":")[0] if modules.quant is not None else _FILE


# --- readings against the tensors -----------------------------------------------------------------------------------


@rule("NM07", "list-disagrees-with-tensors", severity=ERROR, scope=ANY)
def list_disagrees_with_tensors(modules: Modules) -> Iterator[Found]:
    """The exclude list, as its producer means it, leaves out a quantized layer or does not name a plain one.

    Why: the list is all an engine has to decide which layers to build quantized, before it sees a tensor;
    transformers builds a compressed-tensors model by this reading.
    Fix: write the list from the tensors: every layer left alone, and no other.
    Seen: vllm-project/compressed-tensors issue 712 (an ignored layer packed anyway); vllm-project/vllm PR 49187.
    """
    if not modules.exclusion.readable or modules.quant is None:
        return
    builds = ("transformers",) if modules.quant.dialect == "compressed-tensors" else ()
    for odd in modules.exclusion.misdeclared:
        said = "is listed as excluded and is stored quantized" if odd.stored else "is stored plain and is not listed"
        message = f"{_place(odd)} {said}; write the list from the tensors."
        yield Found(message, file=_owner(modules), tensor=odd.example, engines=builds)


def _built(modules: Modules, engines: tuple[str, ...]) -> Iterator[Found]:
    exclusion = modules.exclusion
    for engine in engines if exclusion.readable else ():
        label, odds = exclusion.disagreements(engine)
        for odd in odds:
            stored = "stored quantized" if odd.stored else "stored plain"
            would = "refuse, because the list names only some members of" if odd.partly else "build unquantized"
            would = would if odd.partly or odd.stored else "build quantized"
            message = f"{label} would {would} {_place(odd)}, {stored}; spell the list so that it reads the same there."
            yield Found(message, file=_owner(modules), tensor=odd.example, engines=(engine,), refuses=(engine,))


@rule("NM08", "read-otherwise-by-vllm", severity=ERROR, refuses=("vllm",), scope=_read_by("vllm"))
def read_otherwise_by_vllm(modules: Modules) -> Iterator[Found]:
    """vLLM, with its own matcher, names and fused layers, would build other layers quantized than are stored so.

    Why: it allocates a layer by the list and stops when the tensor does not fit. Single plain experts among quantized
    ones, which no list can say, are a warning: engines that build a layer's experts as one cannot load them.
    Fix: full names in the engine's spelling, or regexes anchored at both ends (Quark, compressed-tensors).
    Seen: vllm-project/vllm issue 54547 (0 of 1,550 entries matched); PR 33876 (nvidia/Kimi-K2.5-NVFP4); PR 48226.
    """
    yield from _built(modules, ("vllm",))
    exclusion, quant = modules.exclusion, modules.quant
    if not exclusion.readable or quant is None or quant.dialect == "compressed-tensors":
        return  # the latter declares a scheme per module: FU07
    for name, plain, total in exclusion.unlike:
        message = (
            f"{plain} of {total} projections in {name} are stored plain, the others quantized; keep the layer's "
            "experts all quantized or all plain."
        )
        yield Found(message, tensor=name, severity=WARNING, engines=LOADERS, refuses=exclusion.engines)


@rule("TP10", "read-otherwise-elsewhere", severity=ERROR, refuses=OTHERS, scope=_read_by(*OTHERS))
def read_otherwise_elsewhere(modules: Modules) -> Iterator[Found]:
    """SGLang, TensorRT-LLM or ATOM would build other layers quantized than are stored so.

    Why: each has a matcher of its own, so a list may be right for vLLM and wrong for the next engine.
    Fix: full names and `prefix*` that ends at a dot (modelopt); `re:^(.*\\.)?name(\\..*)?$` (Quark,
    compressed-tensors); waive it where only vLLM is served.
    Seen: sgl-project/sglang PR 18370 and PR 36761; vllm-project/vllm PR 51285 compares the dialects.
    """
    yield from _built(modules, OTHERS)


# --- the algorithm --------------------------------------------------------------------------------------------------


def _modelopt(headers: Headers) -> bool:
    return any(quant.dialect == "modelopt" for quant in headers.checkpoint.declarations)


@rule("CF03", "refused-algorithm", severity=ERROR, refuses=LOADERS[:3], scope=Scope("modelopt declaration", _modelopt))
def refused_algorithm(headers: Headers) -> Iterator[Found]:
    """The newest release of an engine that reads modelopt's layout does not accept the declared `quant_algo`.

    Why: it stops before it reads a tensor; what older releases refuse is told in the verdict per engine.
    Fix: NVFP4 or W4A16_NVFP4; MXFP4 is published as Quark or compressed-tensors.
    Seen: vLLM `modelopt.py` QUANT_ALGOS; modelopt itself writes `mxfp4`, which no engine reads.
    """
    declared = headers.checkpoint.declarations
    file = next((quant for quant in declared if quant.origin == "hf_quant_config.json"), declared[0])
    for quant, engines in ((declared[0], ("vllm", "sglang")), (file, ("tensorrt-llm",))):
        if quant.dialect == "modelopt":
            yield from _refused(quant, engines)


def _refused(quant: QuantConfig, engines: tuple[str, ...]) -> Iterator[Found]:
    if quant.algo is not None and quant.format is not None and "FP4" not in quant.algo.upper():
        return
    data, algo = jsonio.data("engines/algorithms.json"), (quant.algo or "").upper()
    known = {*data["accepts"].get(algo, {}), *data["unread"].get(algo, ())}
    refusing = tuple(engine for engine in engines if engine not in known)
    if refusing:
        said = f"quant_algo is {quant.algo[:40]!r}" if quant.algo else "There is no quant_algo"
        names = " and ".join(LABELS.get(engine, engine) for engine in refusing)
        message = f"{said}; {names} would refuse it. Declare NVFP4 or W4A16_NVFP4."
        yield Found(message, file=quant.origin.partition(":")[0], engines=refusing, refuses=refusing)


# --- spelling -------------------------------------------------------------------------------------------------------

_META = re.compile(r"[\[\]?()|+^$\\{}]")


def _raw(modules: Modules) -> tuple[str, ...]:
    return modules.quant.ignore if modules.quant is not None else ()


@rule("CF08", "regex-in-glob-list", severity=ERROR, scope=MODELOPT)
def regex_in_glob_list(modules: Modules) -> Iterator[Found]:
    """An entry of a modelopt list is a regex, or holds characters that only some engines take for special.

    Why: vLLM and SGLang never match `re:`; `[` and `?` are a glob's in vLLM and a regex's in SGLang.
    Fix: full names, and `*` for the rest.
    Seen: vllm-project/vllm PR 51285; vLLM `modelopt.py` fnmatch, SGLang `modelopt_quant.py` re.fullmatch.
    """
    usable = frozenset(modules.exclusion.entries)
    for entry in _raw(modules):
        if entry.startswith("re:") or _META.search(entry) or entry not in usable:
            yield Found(f"The entry {entry[:120]!r} is no name or `*` glob; write names.", file=_owner(modules))


@rule("CF09", "ambiguous-entry", severity=ERROR, scope=NAMES)
def ambiguous_entry(modules: Modules) -> Iterator[Found]:
    """An entry of a Quark or compressed-tensors list is a glob or no regex; unanchored ones are a warning.

    Why: these lists hold exact names and `re:`; a glob matches nothing. vLLM anchors a regex at the start, ATOM
    nowhere, TensorRT-LLM at both ends, so that one which is not anchored itself means different layers.
    Fix: `re:^(.*\\.)?name(\\..*)?$`, or the layers' full names.
    Seen: vllm-project/vllm issue 48508; ROCm/ATOM `config.py`; vllm-project/llm-compressor PR 2604.
    """
    exclusion = modules.exclusion
    names = [*exclusion.layers, *(members[0].name for members in exclusion.experts.values())]
    for entry in _raw(modules):
        problem = (
            _glob(entry) if not entry.startswith("re:") else _regex(entry[3:], names if exclusion.readable else [])
        )
        if problem is not None:
            yield Found(f"The entry {entry[:120]!r} {problem[1]}", file=_owner(modules), severity=problem[0])


def _glob(entry: str) -> tuple[Severity, str] | None:
    if "*" in entry or " " in entry:
        return ERROR, "is no name and does not begin with `re:`, so it matches nothing; write `re:` or names."
    return None


def _regex(pattern: str, names: list[str]) -> tuple[Severity, str] | None:
    try:
        compiled = compile_foreign(pattern)
    except NoRegex as error:
        return ERROR, f"cannot be read: {error.message}"
    except PatternError as error:
        return WARNING, f"is not evaluated, and neither is the list: {error.message}"
    for name in names:
        found = {bool(how(name)) for how in (compiled.match, compiled.search, compiled.fullmatch)}
        if len(found) > 1:
            return WARNING, f"means {name} for some engines only; anchor it at both ends."
    return None


@rule("CF10", "entry-inside-a-name", severity=ERROR, refuses=("vllm",), scope=MODELOPT)
def entry_inside_a_name(modules: Modules) -> Iterator[Found]:
    """An entry is a plain part of a quantized layer's name: `model.layers.1` of layer 10, `mlp.gate` of gate_up_proj.

    Why: vLLM leaves out every layer whose name contains an entry, and cannot load what is stored quantized there.
    Fix: full names; for a subtree `prefix.*`.
    Seen: vLLM `modelopt.py` `is_layer_excluded`, unchanged from 0.17 to 0.33.
    """
    if modules.exclusion.readable:
        for entry, odd in modules.exclusion.substrings:
            message = f"The entry {entry[:120]!r} is a part of the name of {_place(odd)}, stored quantized; "
            yield Found(f"{message}write the full name.", file=_owner(modules), tensor=odd.example)


@rule("CF11", "entry-for-one-expert", severity=ERROR, refuses=("vllm",), scope=ANY)
def entry_for_one_expert(modules: Modules) -> Iterator[Found]:
    """An entry names single experts of a layer whose experts are quantized.

    Why: engines build all experts of a layer as one module. vLLM then leaves out all of them (modelopt, Quark) or
    looks at expert 0 alone (compressed-tensors); SGLang and TensorRT-LLM ignore the entry.
    Fix: quantize all experts of the layer, or leave all of them and name `….experts`.
    Seen: vllm-project/vllm PR 48226; ROCm/vllm PR 1022; vLLM `quark/utils.py`.
    """
    exclusion, found = modules.exclusion, dict[str, list[str]]()
    for entry in _raw(modules):
        moe = moe_module(entry) if ".experts." in entry and not entry.startswith("re:") else None
        if moe is not None and moe in exclusion.experts:
            found.setdefault(moe, []).append(entry)
    for moe, entries in found.items():
        if exclusion.kept(moe) is True:
            continue
        message = (
            f"{len(entries):,} entries name single experts of {moe}, such as {entries[0][:120]}; name all or none."
        )
        yield Found(message, file=_owner(modules), tensor=moe)


@rule("CF30", "entry-matches-nothing", severity=WARNING, scope=ANY)
def entry_matches_nothing(modules: Modules) -> Iterator[Found]:
    """An entry of the exclude list matches no module of the checkpoint, or the list cannot be evaluated.

    Why: somebody meant a layer, and it is not protected; usually a typing error, or a name from another version of
    the model. Entries for kinds of layers the model has not (`lm_head` of a tied model) are not meant.
    Fix: correct the name or remove the entry.
    Seen: vllm-project/compressed-tensors PR 866.
    """
    flaw = modules.exclusion.flaw
    if flaw is not None:
        yield Found(f"The exclude list is not evaluated: {flaw.rstrip('.')}. Write it shorter.", file=_owner(modules))
        return
    lost = unmatched(modules.exclusion)
    if len(lost) > FEW:
        message = f"{len(lost):,} of {len(_raw(modules)):,} entries match no module, such as {lost[0][:120]!r}; "
        yield Found(f"{message}compare them with the tensors' names.", file=_owner(modules))
        return
    for entry in lost:
        yield Found(f"The entry {entry[:120]!r} matches no module; correct or remove it.", file=_owner(modules))


# --- members of one layer -------------------------------------------------------------------------------------------


def _state(modules: Modules, module: Module, packed: frozenset[str]) -> str | None:
    """A member's format; None for what is no weight of a published checkpoint."""
    if module.name in packed:
        return modules.format_of(module) or "FP4"
    dtype = module.ref.dtype if module.weight is not None else ""
    return "FP8" if dtype.startswith("F8") else "plain" if dtype in PLAIN else None


@rule(
    "FU06",
    "unlike-members",
    severity=ERROR,
    refuses=LOADERS,
    scope=Scope("FP4 module", lambda modules: bool(modules.packed)),
)
def unlike_members(modules: Modules) -> Iterator[Found]:
    """Members of one fused layer (q/k/v, gate/up, q_a/kv_a, w1/w3) are stored in different formats.

    Why: engines build them as one layer with one format, and refuse or misread the others.
    Fix: quantize all members alike, or leave all of them alone and list them.
    Seen: vllm-project/vllm issue 31623 and PR 41457; vLLM raises "requires all to use the same scheme".
    """
    packed, table = frozenset(module.name for module in modules.packed), modules.checkpoint.modules
    groups: dict[tuple[str, str], list[str]] = {}
    for fused, members in fused_groups(n for n, module in table.items() if module.weight is not None).items():
        states = [_state(modules, table[member], packed) for member in members]
        if None not in states and len(set(states)) > 1:
            said = ", ".join(f"{m.rpartition('.')[2]} {state}" for m, state in zip(members, states, strict=True))
            groups.setdefault((class_of(fused), said), []).append(fused)
    for (_, said), names in groups.items():
        odd = grouped((name, True, False) for name in names)[0]
        yield Found(f"{_place(odd)} has unlike members: {said}; quantize them alike or none.", tensor=names[0])
