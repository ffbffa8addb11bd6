"""The rules: how one is declared, which there are, and how they run over the evidence.

A rule is a function in `validators/`; the type of its first parameter is the evidence it asks for. Its docstring holds
the summary, why it matters, the fix and where it was seen; `catalogue` makes tables of them. A rule that could not look
is reported as not run with the reason, and one that fails on its own is an error under its own code, so nothing passes
that was not checked.
"""

from publisher.rules.declared import ENGINES, Rule, Scope, rule
from publisher.rules.outcome import MAX_PLACES
from publisher.rules.registry import chosen, load_rules
from publisher.rules.running import evidence_asked, run

__all__ = ["ENGINES", "MAX_PLACES", "Rule", "Scope", "chosen", "evidence_asked", "load_rules", "rule", "run"]
