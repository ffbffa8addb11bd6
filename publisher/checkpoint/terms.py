"""Files of terms: which they are, which licence a text is, and what each known licence asks of whoever passes it on.

A licence is recognised by phrases that only its text has, or word by word where it is a standard one. What it asks is
data (`data/licences/duties.json`), read in the licences themselves; a licence that is not in the data has no known
duties, which is not the same as none.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.checkpoint import spdx
from publisher.checkpoint.files import safe_name

MAX_TEXT = 1 << 20  # characters of a text that is judged; the longest licences have some forty thousand
_LICENCE = re.compile(r"^(?!notice|third.party|use.policy).*(?:licen[cs]e|^copying)")
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "*": None, "_": None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """What a text is: the licence's identifier, and the first words it adds to the standard text (empty for none)."""

    identifier: str
    added: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Restrictions of use that bind further users too, and where they can be read."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What a licence asks of whoever publishes a changed model.

    Args:
        identifier: as in the data.
        title: what to call it in a sentence.
        url: where its text can be read.
        copy: a copy of the text must travel along.
        changes: the publication must say that the model was changed.
        prefix: how the name of the changed model must begin.
        attribution: one of these lines must be displayed.
        notice: a sentence that a file called Notice must hold.
        notice_begins: how that sentence begins in every version of the licence.
        display: the name that large products must show.
        display_when: which products.
        policy: restrictions of use that bind further users.
        commercial: whether commercial use is allowed.
        derivatives: whether changed versions may be shared.
        remarks: what else users should know, each a sentence.
    """

    identifier: str
    title: str
    url: str
    copy: bool
    changes: bool
    prefix: str | None
    attribution: tuple[str, ...]
    notice: str | None
    notice_begins: str
    display: str | None
    display_when: str
    policy: Policy | None
    commercial: bool
    derivatives: bool
    remarks: tuple[str, ...]


def holds_terms(path: str) -> bool:
    """Whether a file of this name holds terms: a licence, a notice, a use policy."""
    table, base = jsonio.data("licences/files.json"), path.rpartition("/")[2].lower()
    return any(fnmatch.fnmatchcase(base, pattern) for pattern in table["names"]) and not any(
        fnmatch.fnmatchcase(base, pattern) for pattern in table["not"]
    )


def terms_in(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that hold terms, in any folder, sorted."""
    return sorted(name for name in names if safe_name(name) and holds_terms(name))


def licence_texts(names: Iterable[str]) -> list[str]:
    """Files that hold a licence itself: LICENSE at the root before any other spelling or folder."""
    links = jsonio.data("licences/files.json")["link"]
    found = [path for path in terms_in(names) if _LICENCE.search(path.rpartition("/")[2].lower())]
    return sorted(found, key=lambda path: (path not in links, path.count("/"), path))


def notices(names: Iterable[str]) -> list[str]:
    """Files called Notice, in any folder."""
    return [path for path in terms_in(names) if path.rpartition("/")[2].lower().startswith("notice")]


def readable(text: bytes) -> str:
    """A text with white space folded and quotes straightened; what is not UTF-8 is marked."""
    return " ".join(text[: 4 * MAX_TEXT].decode("utf-8", errors="replace")[:MAX_TEXT].translate(_QUOTES).split())


def recognise(text: bytes) -> Recognised | None:
    """The licence a text is, where it is a known one."""
    folded = readable(text).lower()
    for row in jsonio.data("licences/texts.json")["texts"]:
        phrases, others = row.get("all", ()), row.get("none", ())
        if phrases and all(p in folded for p in phrases) and not any(p in folded for p in others):
            return Recognised(identifier=row["id"])
    found = spdx.match(text[: 4 * MAX_TEXT].decode("utf-8", errors="replace")[:MAX_TEXT])
    return None if found is None else Recognised(identifier=found.identifier, added=found.added)


def title(identifier: str) -> str:
    """What to call a licence in a sentence."""
    return _titles().get(identifier, identifier)


def declared(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Identifiers a card declares, in lower case: `license`, one or several; for `other` its name."""
    value = metadata.get("license")
    values = value if isinstance(value, list) else [value]
    found = [item.strip().lower() for item in values if isinstance(item, str) and item.strip()]
    name = metadata.get("license_name")
    if "other" in found and isinstance(name, str) and name.strip():
        found.append(slug(name))
    return tuple(dict.fromkeys(item for item in found if item != "other"))


def slug(name: str) -> str:
    """A licence's name as an identifier."""
    return re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-.+")[:96]


def meant_by(name: str) -> frozenset[str]:
    """Identifiers of the licences that go by a declared name; empty for a name nobody but its author knows."""
    rows = {row["id"] for row in _duties().get(name, ())}
    known = name in _titles() or name in jsonio.data("licences/hub.json")["identifiers"]
    return frozenset(rows | ({name} if known else set()))


def duties(identifiers: Iterable[str], texts: Iterable[str] = ()) -> tuple[Duties, ...]:
    """What the licences of these names ask, each once; unknown ones are passed over.

    Args:
        identifiers: as cards declare them or `recognise` gives them.
        texts: the licences' texts as `readable` gives them; what they name themselves (who holds the copyright, which
            name to display) is taken from them.
    """
    known, found, quoted = _duties(), dict[str, Duties](), " ".join(texts)
    for identifier in identifiers:
        for row in known.get(identifier, ())[:1]:
            found[row["id"]] = _made(row, quoted)
    return tuple(found.values())


def begins(name: str, prefix: str) -> bool:
    """Whether a model's name begins with a prefix; case and separators do not count."""
    bare = [re.sub(r"[^a-z0-9]", "", part.lower()) for part in (name, prefix)]
    return bare[0].startswith(bare[1])


# --- details -------------------------------------------------------------------------------------------------------


@functools.cache
def _titles() -> dict[str, str]:
    return {row["id"]: row["title"] for row in jsonio.data("licences/texts.json")["texts"]}


@functools.cache
def _duties() -> dict[str, list[dict[str, Any]]]:
    """Rows by every name they go by; an identifier before another licence's second name."""
    found: dict[str, list[dict[str, Any]]] = {}
    rows = jsonio.data("licences/duties.json")["licences"]
    for names in ("ids", "names"):
        for row in rows:
            for name in row.get(names, ()):
                found.setdefault(name, []).append({**row, "id": name if names == "ids" else row["ids"][0]})
    return found


def _made(row: Mapping[str, Any], text: str) -> Duties:
    notice, display, policy = row.get("notice", {}), row.get("display", {}), row.get("policy")
    return Duties(
        identifier=row["id"],
        title=title(row["id"]),
        url=row["url"],
        copy=row.get("copy", False),
        changes=row.get("changes", False),
        prefix=row.get("prefix"),
        attribution=tuple(row.get("attribution", ())),
        notice=_sentence(text, notice["begins"]) or notice["sentence"] if notice else None,
        notice_begins=notice.get("begins", ""),
        display=_displayed(text) or display["name"] if display else None,
        display_when=display.get("when", ""),
        policy=Policy(name=policy["name"], url=policy["url"]) if policy else None,
        commercial=not row.get("noncommercial", False),
        derivatives=not row.get("noderivatives", False),
        remarks=tuple(row.get("remarks", ())),
    )


def _sentence(text: str, begins: str) -> str | None:
    """The sentence a licence quotes for the notice, to its closing quote."""
    found = re.search(rf"[\"']({re.escape(begins)}[^\"]{{0,200}}?)[\"'](?=[^\w]|$)", text)
    return found.group(1).strip() if found else None


def _displayed(text: str) -> str | None:
    """The name a licence asks products to display, in its own quotes."""
    found = re.search(r"prominently display \"([\w .&+-]{2,60})\"", text)
    return found.group(1) if found else None
