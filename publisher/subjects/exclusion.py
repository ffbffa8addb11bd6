"""What an exclude list says, as its producer means it and as each engine reads it, beside what is stored.

Engines do not see the checkpoint's modules: q, k and v are one layer, all experts of a layer are one module, a wrapped
model has names of its own. The list is read over those. Modules an engine builds unquantized without asking (routers,
heads, norms, towers) are nobody's disagreement, and layers that predict more tokens are judged by a rule of their own.
Work is bounded: numbered experts are collapsed first, a list whose patterns would take too long is not evaluated and
says so in `flaw`.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from publisher.checkpoint.modules import Module, class_of, layer_of, role_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.matching import (
    DIALECTS,
    LAYOUTS,
    MAX_NAME,
    READERS,
    PartlyFused,
    PatternError,
    Reader,
    VllmModelopt,
    check_pattern,
    reader,
    regex_cost,
)
from publisher.matching.contained import Substrings
from publisher.matching.patterns import WILD
from publisher.plan.proof import engine_modules

FILE = "hf_quant_config.json"
PLAIN = frozenset({"BF16", "F16", "F32"})  # dtypes of layers that are left alone
MAX_STEPS = 2_000_000_000  # what evaluating a list may take at worst: regexes by their wide repeats, globs by length
MAX_HITS = 500  # layers whose hidden entries are named
# Roles that a producer lists when it leaves them alone; Quark's list may leave the head out, which nobody quantizes.
LISTED = frozenset({"attention", "mlp", "shared_expert", "expert", "head", "vision", "projector"})
_TABLES = re.compile(r"embed|norm|position")  # weights of two dimensions in a tower that are no linear layers
_NUMBERED = re.compile(r"experts(?:\\?\.)(\d{1,6})(?=\\?\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """Modules of one class that somebody reads otherwise than they are stored.

    Args:
        kind: their name with every number replaced by `*`.
        stored: whether they are stored quantized.
        partly: whether the list names some members of a fused layer and not the others.
        modules: how many.
        layers: the layers they lie in, ascending.
        example: the first of them.
    """

    kind: str
    stored: bool
    partly: bool
    modules: int
    layers: tuple[int, ...]
    example: str


class Exclusion:
    """The exclude list of one checkpoint beside its module table.

    Args:
        checkpoint: the checkpoint.
        packed: its modules stored as FP4.
        predicts: whether a module lies in a layer that predicts more tokens.
    """

    def __init__(self, checkpoint: Checkpoint, packed: Iterable[Module], predicts: Callable[[str], bool]) -> None:
        self.checkpoint, self._predicts = checkpoint, predicts
        self.quant = checkpoint.quant
        self._packed = frozenset(module.name for module in packed)
        self.layers: dict[str, Module] = {}
        self.experts: dict[str, list[Module]] = {}
        text = checkpoint.config.get("text_config")
        tied = any(part.get("tie_word_embeddings") for part in (checkpoint.config, text) if isinstance(part, Mapping))
        for name, module in checkpoint.modules.items():
            if name not in self._packed and not _is_linear(module, checkpoint.modules):
                continue
            head, mark, tail = name.rpartition(".experts.")
            if len(name) > MAX_NAME or (module.role == "head" and tied):
                continue
            if mark and tail.partition(".")[0].isdecimal():
                self.experts.setdefault(f"{head}.experts", []).append(module)
            else:
                self.layers[name] = module

    @property
    def readable(self) -> bool:
        """Whether there is a list of a known dialect over FP4 modules, and it can be evaluated."""
        return self.declared and self.flaw is None

    @property
    def declared(self) -> bool:
        """Whether there is a list of a known dialect over FP4 modules."""
        quant = self.quant
        formats = ("nvfp4", "mxfp4")
        known = quant is not None and quant.dialect in LAYOUTS and quant.format in formats and not quant.flaws
        return known and bool(self._packed)

    @functools.cached_property
    def entries(self) -> tuple[str, ...]:
        """The entries that a module's name can match at all."""
        return _usable(self.quant.ignore) if self.quant is not None else ()

    @functools.cached_property
    def flaw(self) -> str | None:
        """Why the list is not evaluated; None when it is."""
        names = len(self.layers) + len(self.experts)
        length = max(map(len, itertools.chain(self.layers, self.experts)), default=0)
        steps = sum(_cost(entry, length) for entry in self.entries) * max(names, 1)
        if steps > MAX_STEPS:
            return f"its {len(self.entries):,} entries over {names:,} layers would take {steps:.1g} steps to compare"
        try:
            for quant in self._quants():
                _ = DIALECTS[quant.dialect](_usable(quant.ignore), ())
            _ = self._readers
        except PatternError as error:
            return error.message
        return None

    def kept(self, name: str) -> bool | None:
        """Whether a layer or a whole MoE module is stored unquantized; None where its experts are stored unlike."""
        if name in self.layers:
            return name not in self._packed
        states = {member.name not in self._packed for member in self.experts.get(name, ())}
        return states.pop() if len(states) == 1 else None

    @functools.cached_property
    def _states(self) -> dict[str, bool]:
        """Every layer and every MoE module with one state: name to whether it is kept, drafts left out."""
        found: dict[str, bool] = {}
        for name in itertools.chain(self.layers, self.experts):
            state = self.kept(name)
            if state is not None and not self._predicts(name):
                found[name] = state
        return found

    @functools.cached_property
    def unlike(self) -> tuple[tuple[str, int, int], ...]:
        """MoE modules that hold both quantized and plain projections: name, how many plain, how many in all."""
        found = []
        for name, members in self.experts.items():
            plain = sum(member.name not in self._packed for member in members)
            if 0 < plain < len(members):
                found.append((name, plain, len(members)))
        return tuple(found)

    def role(self, name: str) -> str:
        """The role of a layer, a MoE module or a fused layer."""
        module = self.layers.get(name)
        return module.role if module is not None else role_of(name)

    # --- readings ---------------------------------------------------------------------------------------------------

    def _quants(self) -> Iterator[QuantConfig]:
        if self.quant is not None:
            yield self.quant
        yield from (
            quant for quant in self.checkpoint.declarations if quant.origin == FILE and quant.dialect in LAYOUTS
        )

    @functools.cached_property
    def _readers(self) -> tuple[Reader, ...]:
        """The engines that load this layout of this format and whose names for this model are known."""
        if self.quant is None:
            return ()
        model, found = str(self.checkpoint.config.get("model_type")), []
        for engine in READERS:
            quant = list(self._quants())[-1] if engine == "tensorrt-llm" else self.quant  # it obeys the file first
            one = reader(engine, quant.dialect, quant.format, _usable(quant.ignore), model, self.layers)
            found += [one] if one is not None else []
        return tuple(found)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines whose reading is known."""
        return tuple(one.engine for one in self._readers)

    def disagreements(self, engine: str) -> tuple[str, tuple[Odd, ...]]:
        """An engine's name, and what it would build otherwise than it is stored; empty where it does not read."""
        one = next((one for one in self._readers if one.engine == engine), None)
        if one is None:
            return engine, ()
        wrong: list[tuple[str, bool, bool]] = []
        for name, keep in engine_modules(self._states, one.fused).items():
            if keep is None or self.role(name) not in one.roles:
                continue
            try:
                if one.matcher(one.internal(name)) is not keep:
                    wrong.append((name, not keep, False))
            except PartlyFused:
                wrong.append((name, not keep, True))
            except PatternError:
                continue  # a name too long for a regex
        return one.label, grouped(wrong)

    @functools.cached_property
    def substrings(self) -> tuple[tuple[str, Odd], ...]:
        """Entries that vLLM's modelopt reading takes for a part of a quantized layer's name, against their meaning."""
        one = next((one for one in self._readers if one.engine == "vllm"), None)
        if one is None or not isinstance(one.matcher, VllmModelopt):
            return ()
        stems = {entry[:-1] for entry in self.entries if entry.endswith("*")}  # they mean what begins so
        plain = [entry for entry in one.matcher.entries if entry not in stems and not WILD.search(entry)]
        part, found = Substrings(plain), dict[str, list[tuple[str, bool, bool]]]()
        built = (name for name, keep in engine_modules(self._states, one.fused).items() if keep is False)
        hits = ((name, one.internal(name)) for name in built if self.role(name) in one.roles)
        for name, internal in itertools.islice(((n, i) for n, i in hits if part(i)), MAX_HITS):
            for entry in plain:
                if entry in internal and entry != internal:
                    found.setdefault(entry, []).append((name, True, False))
        return tuple((entry, odd) for entry, names in found.items() for odd in grouped(names))

    @functools.cached_property
    def misdeclared(self) -> tuple[Odd, ...]:
        """What the list, as its producer means it, says otherwise than it is stored."""
        if self.quant is None:
            return ()
        numbers = {match.group(1) for entry in self.entries for match in _NUMBERED.finditer(entry)}
        members = [m for moe in self.experts.values() for m in _some(moe, numbers)]
        names = [*self.layers, *(member.name for member in members)]
        listed = DIALECTS[self.quant.dialect](self.entries, [name for name in names if not self._predicts(name)])
        mixed = {name for name, _, _ in self.unlike}
        wrong = [(name, True, False) for name in names if name in listed and name in self._packed]
        for name in names:
            module = self.checkpoint.modules[name]
            plain = name not in listed and name not in self._packed and not self._predicts(name)
            moe = name.rpartition(".experts.")[0] + ".experts"
            if plain and moe not in mixed and self._expected(module):
                wrong.append((name, False, False))
        return grouped(wrong)

    def _expected(self, module: Module) -> bool:
        """Whether a producer lists such a layer when it leaves it alone."""
        weight, quark = module.weight, self.quant is not None and self.quant.dialect == "quark"
        if weight is None or len(weight.shape) != 2 or module.role not in LISTED:
            return False
        if module.role in ("vision", "projector") and _TABLES.search(module.name):
            return False
        return module.role != "head" or not quark


def _is_linear(module: Module, modules: Mapping[str, Module]) -> bool:
    """Whether a module is a plain layer with a matrix of its own: no convolution, no adapter inside another layer."""
    weight = module.weight
    if weight is None or len(weight.shape) != 2 or not (weight.dtype in PLAIN or weight.dtype.startswith("F8")):
        return False
    parent = modules.get(module.name.rpartition(".")[0])
    return parent is None or parent.weight is None


def grouped(wrong: Iterable[tuple[str, bool, bool]]) -> tuple[Odd, ...]:
    """Modules by class and by what is wrong, with the layers they lie in."""
    groups: dict[tuple[str, bool, bool], list[str]] = {}
    for name, stored, partly in wrong:
        groups.setdefault((class_of(name), stored, partly), []).append(name)
    return tuple(
        Odd(
            kind=kind,
            stored=stored,
            partly=partly,
            modules=len(names),
            layers=tuple(sorted({layer for name in names if (layer := layer_of(name)) is not None})),
            example=names[0],
        )
        for (kind, stored, partly), names in groups.items()
    )


@functools.lru_cache(maxsize=4)
def _usable(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Entries that can be patterns; no name holds a space, and none is longer than a pattern may be."""
    return tuple(entry for entry in entries if _is_pattern(entry))


def _is_pattern(entry: str) -> bool:
    try:
        return bool(check_pattern(entry))
    except PatternError:
        return False


def _cost(entry: str, length: int) -> int:
    if entry.startswith("re:"):
        return regex_cost(entry[3:], length)
    return length if "*" in entry[:-1] or "?" in entry or "[" in entry else 1


def _some(members: list[Module], numbers: set[str]) -> Iterator[Module]:
    """The first and the last expert of a MoE module, and those whose numbers a list mentions."""
    tails = [(member, member.name.rpartition(".experts.")[2].partition(".")[0]) for member in members]
    ends = {tails[0][1], tails[-1][1]} | numbers
    yield from (member for member, number in tails if number in ends)
