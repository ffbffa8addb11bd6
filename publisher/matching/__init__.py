"""Name patterns: the recipe's globs, and how serving engines read the exclude list of a checkpoint.

Every engine has an algorithm of its own for the question "is this module left unquantized?", and they disagree: plain
substrings in vLLM's modelopt reader, dotted paths and single name parts in SGLang's, ancestors in TensorRT-LLM's,
exact names or `re:` regexes in the Quark and compressed-tensors readers, unanchored ones in ATOM's. Each is written
down here once, so that a list can be proven before it is published. Which engine reads which layout, and under which
names it builds a model's modules, is `readers` and its tables.
"""

from publisher.matching.atom import Atom
from publisher.matching.fused import FusedMap, Matcher, PartlyFused
from publisher.matching.patterns import (
    MAX_NAME,
    MAX_PATTERN,
    ExactOrRegex,
    Fnmatches,
    Globs,
    NoRegex,
    PatternError,
    check_pattern,
    compile_foreign,
    regex_cost,
)
from publisher.matching.producers import (
    DIALECTS,
    exact_or_regex_excluded,
    modelopt_excluded,
    quark_selected,
)
from publisher.matching.readers import LAYOUTS, READERS, Reader, reader
from publisher.matching.sglang import SglangCompressed, SglangModelopt, SglangQuark
from publisher.matching.tensorrt import TensorrtNew, TensorrtOld
from publisher.matching.vllm import VllmExactOrRegex, VllmModelopt

__all__ = [
    "DIALECTS",
    "LAYOUTS",
    "MAX_NAME",
    "MAX_PATTERN",
    "READERS",
    "Atom",
    "ExactOrRegex",
    "Fnmatches",
    "FusedMap",
    "Globs",
    "Matcher",
    "NoRegex",
    "PartlyFused",
    "PatternError",
    "Reader",
    "SglangCompressed",
    "SglangModelopt",
    "SglangQuark",
    "TensorrtNew",
    "TensorrtOld",
    "VllmExactOrRegex",
    "VllmModelopt",
    "check_pattern",
    "compile_foreign",
    "exact_or_regex_excluded",
    "modelopt_excluded",
    "quark_selected",
    "reader",
    "regex_cost",
]
