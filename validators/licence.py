"""LC: what the upstream licence asks of whoever publishes a changed model, one rule per duty.

The duties are data, read in the licences; what they say is not advice. A licence the data does not hold is not judged
here, only carried along (LC01) and named (LC02).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from publisher.checkpoint.terms import Duties, begins, licence_texts, meant_by, terms_in, title
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import CARD, Terms, Upstream
from publisher.subjects.terms import plain

FAMILIES = ("bsd", "cc", "gpl", "lgpl", "openrail")  # names the Hub knows for several licences at once
_POLICY = re.compile(r"(?:acceptable|prohibited)?[_-]?use[_-]")
_CHANGED = re.compile(r"quanti[sz]|convert|modif|changed|deriv|compress|four bits|4-bit|fp4")


def _asked(noun: str, asks: Callable[[Duties], object]) -> Scope:
    """Repositories of which some licence asks a thing."""
    return Scope(noun, lambda terms: any(asks(duty) for duty in terms.duties))


@rule(
    "LC15",
    "mislabelled-licence",
    severity=WARNING,
    scope=Scope("licence file with a known text", lambda terms: bool(terms.recognised)),
)
def mislabelled_licence(terms: Terms) -> Iterator[Found]:
    """The licence file is another licence than the card names, or a standard one with a clause added to it.

    Why: readers and companies' filters go by the card; the file is what binds them.
    Fix: name the licence of the file; one with a clause of its own is `other` with a license_name.
    Seen: Kimi K2's Modified MIT, which is MIT but for one sentence; repositories labelled mit that hold it.
    """
    texts, meant = terms.recognised, [meant_by(name) for name in terms.declared]
    judged = len(texts) == len(licence_texts(terms.checkpoint.files.sizes)) and bool(meant) and all(meant)
    if judged and not any(_among(found.identifier, meant) for found in texts.values()):
        path, found = next(iter(texts.items()))
        named = ", ".join(terms.declared)
        yield Found(f"{path} is {title(found.identifier)}, the card names {named[:100]}; correct the card.", file=path)
    for path, found in texts.items():
        if found.added and _among(found.identifier, meant):
            message = f"{path} adds words to {title(found.identifier)} ({found.added!r}); publish it as license: other."
            yield Found(message, file=path)


def _among(identifier: str, meant: list[frozenset[str]]) -> bool:
    """Whether one of the declared names means a licence: itself, or the family it belongs to."""
    families = {family for family in FAMILIES if family in identifier.split("-")}
    return any(identifier in names or families & names for names in meant)


@rule(
    "LC16",
    "missing-name-prefix",
    severity=ERROR,
    scope=_asked("licence that says how a changed model is called", lambda duty: duty.prefix),
)
def missing_name_prefix(terms: Terms) -> Iterator[Found]:
    """The repository's name does not begin as the licence asks of changed models.

    Why: whoever distributes a model made with Llama must put "Llama" at the beginning of its name; the licence ends
         for those who do not.
    Fix: publish under a name that begins so, such as Llama-3.3-70B-Instruct-NVFP4.
    Seen: Llama 3.1 Community License, section 1.b.i.
    """
    for duty in terms.duties:
        if duty.prefix and terms.name and not begins(terms.name, duty.prefix):
            message = f"The name {terms.name[:96]!r} does not begin with {duty.prefix!r}, as the {duty.title} asks"
            yield Found(f"{message}; rename the repository.")


@rule(
    "LC17",
    "missing-attribution",
    severity=ERROR,
    scope=_asked("licence that asks for a line in the card", lambda duty: duty.attribution),
)
def missing_attribution(terms: Terms) -> Iterator[Found]:
    """The card lacks the line by which the licence wants to be credited.

    Why: "Built with Llama" (or Qwen) must be displayed prominently wherever a changed model is offered.
    Fix: write the line into the card as a line of its own.
    Seen: Llama 3.3 Community License, section 1.b.i; Qwen License, section 4.b.
    """
    for duty in terms.duties:
        if duty.attribution and not any(terms.says(line) for line in duty.attribution):
            lines = " or ".join(repr(line) for line in duty.attribution)
            yield Found(f"The card does not say {lines}, as the {duty.title} asks; write the line.", file=CARD)


@rule(
    "LC18",
    "missing-notice",
    severity=ERROR,
    scope=_asked("licence that asks for a Notice file", lambda duty: duty.notice),
)
def missing_notice(terms: Terms) -> Iterator[Found]:
    """No file called Notice holds the sentence that the licence dictates.

    Why: the sentence names the licence and its owner, and must be in all copies that are distributed.
    Fix: write the sentence into a file NOTICE beside the licence.
    Seen: Llama 3.1 Community License, section 1.b.iii; Gemma Terms of Use, section 3.1; Qwen License, section 3.c.
    """
    for duty in terms.duties:
        if duty.notice and not any(duty.notice_begins.lower() in text for text in terms.notices):
            yield Found(f"No file NOTICE holds {duty.notice!r}, as the {duty.title} asks; write it.", file="NOTICE")


@rule(
    "LC19",
    "unsaid-display-duty",
    severity=WARNING,
    scope=_asked("licence that asks products for a display", lambda duty: duty.display),
)
def unsaid_display_duty(terms: Terms) -> Iterator[Found]:
    """The card does not tell that large products must display the model's name.

    Why: whoever serves the checkpoint owes the display and will look for terms in the card first.
    Fix: say in the card which products must display which name.
    Seen: github.com/MoonshotAI/Kimi-K2, LICENSE: above 100 million monthly users or 20 million US dollars a month.
    """
    for duty in terms.duties:
        if duty.display and not re.search(rf"display.{{0,80}}{re.escape(plain(duty.display))}(?!\w|\.\w)", terms.prose):
            message = f'The {duty.title} asks that "{duty.display}" is displayed {duty.display_when}'
            yield Found(f"{message}; say so in the card.", file=CARD)


@rule(
    "LC20",
    "no-derivatives",
    severity=ERROR,
    scope=Scope("known licence", lambda terms: bool(terms.duties)),
)
def no_derivatives(terms: Terms) -> Iterator[Found]:
    """The licence does not allow sharing changed versions, and a quantized model is one.

    Why: a copy in another number format is an adaptation that only the owner may allow.
    Fix: ask the owner; with leave, waive the rule and name the leave as the reason, which is published.
    Seen: creativecommons.org/licenses/by-nd/4.0, section 2.a.1.
    """
    for duty in terms.duties:
        if not duty.derivatives:
            yield Found(f"{duty.title} does not allow sharing changed versions; ask the owner for leave.", file=CARD)


@rule(
    "LC21",
    "unsaid-non-commercial",
    severity=WARNING,
    scope=_asked("licence without commercial use", lambda duty: not duty.commercial),
)
def unsaid_non_commercial(terms: Terms) -> Iterator[Found]:
    """The card does not say that commercial use is not allowed.

    Why: a reader who takes a card without that sentence for leave to sell breaks the licence.
    Fix: say in the card that the licence allows no commercial use; a gate does not replace it.
    Seen: Qwen2.5-3B under the Qwen Research License; Mistral AI Research License.
    """
    for duty in terms.duties:
        if not duty.commercial and not re.search(
            r"no commercial|non-?commercial|not\b.{0,30}\bcommercial", terms.prose
        ):
            yield Found(f"{duty.title} allows no commercial use and the card does not say so; add it.", file=CARD)


@rule(
    "LC22",
    "missing-use-policy",
    severity=ERROR,
    scope=_asked("licence with a use policy", lambda duty: duty.policy),
)
def missing_use_policy(terms: Terms) -> Iterator[Found]:
    """The restrictions of use that bind every user are neither in a file nor named in the card.

    Why: these licences make whoever passes the model on pass the restrictions on.
    Fix: copy the policy from the source, or link to it in the card.
    Seen: Llama's USE_POLICY.md; Gemma Prohibited Use Policy; Attachment A of the OpenRAIL licences.
    """
    names = terms.checkpoint.files.sizes
    policies = [name for name in terms_in(names) if _POLICY.match(name.rpartition("/")[2].lower())]
    inside = {found.identifier for found in terms.recognised.values()}
    for duty in terms.duties:
        if duty.policy is None or policies or (duty.identifier in inside and "Attachment" in duty.policy.name):
            continue
        if not terms.says(duty.policy.url) and not terms.says(duty.policy.name):
            message = f"The {duty.policy.name} is neither a file here nor named in the card"
            yield Found(f"{message}; link to {duty.policy.url}.", file=CARD)


@rule(
    "LC23",
    "unsaid-changes",
    severity=WARNING,
    scope=_asked("licence that asks for changes to be said", lambda duty: duty.changes),
)
def unsaid_changes(terms: Terms) -> Iterator[Found]:
    """The card's text does not say that the model was changed.

    Why: Apache-2.0 and others ask for a prominent notice that files were changed, and by whom readers see it.
    Fix: say in the card that the weights were quantized from those of the source.
    Seen: Apache-2.0 section 4(b); Gemma Terms of Use, section 3.1; Creative Commons 4.0, section 3(a)(1)(B).
    """
    if not _CHANGED.search(terms.prose):
        asking = next(duty for duty in terms.duties if duty.changes)
        message = f"The card does not say that the model was changed, as {asking.title} asks"
        yield Found(f"{message}; write that its weights were quantized.", file=CARD)


@rule(
    "LC24",
    "ungated-derivative",
    severity=ERROR,
    scope=Scope("gate of the source", lambda upstream: _gated(upstream)),
)
def ungated_derivative(upstream: Upstream) -> Iterator[Found]:
    """The source is gated and its quantized copy is not.

    Why: whoever could not get the weights without accepting the owner's terms can get them here.
    Fix: publish with --gate auto or manual and the source's conditions in the gate's form.
    Seen: huggingface.co/meta-llama, whose models ask for consent; ungated copies of them.
    """
    forms = any(str(key).startswith("extra_gated_") for key in upstream.card.metadata)
    if upstream.gate == "off" or (upstream.gate is None and not forms):
        told = "its gate is off" if upstream.gate == "off" else "its card has no form for a gate"
        yield Found(f"The source is gated and this copy is not: {told}; publish it with --gate manual.", file=CARD)


def _gated(upstream: Upstream) -> bool:
    if upstream.source_gate is not None:
        return upstream.source_gate != "off"
    return any(str(key).startswith("extra_gated_") for key in upstream.source_card.metadata)


@rule(
    "LC25",
    "no-licence-text",
    severity=WARNING,
    scope=_asked("licence whose text must travel", lambda duty: duty.copy),
)
def no_licence_text(terms: Terms) -> Iterator[Found]:
    """The licence asks that a copy of it travels; there is neither a licence file nor a link to the text.

    Why: recipients must be able to read what they are given the weights under.
    Fix: copy the licence from the source, or link to its text in the card.
    Seen: Apache-2.0 section 4(a); model repositories that name a licence and ship none.
    """
    link = terms.metadata.get("license_link")
    if licence_texts(terms.checkpoint.files.sizes) or (isinstance(link, str) and "://" in link):
        return
    for duty in terms.duties:
        if duty.copy and not terms.says(duty.url):
            yield Found(f"No file holds the {duty.title} and the card does not link to it; add {duty.url}.", file=CARD)
