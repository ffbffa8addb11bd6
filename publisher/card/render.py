"""A card context made into Markdown: the only door to Jinja.

Templates are ours, values are strangers': every value a template prints is escaped for Markdown unless a filter has
made it code, a fence or a link. The sandbox keeps a template from calling what it should not, StrictUndefined makes a
misspelt field an error, and what comes out is checked before it is returned. The same context gives the same bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, Undefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from publisher import jsonio
from publisher.card import escape
from publisher.card.context import CardContext
from publisher.card.images import Picture
from publisher.card.upstream import HUB_ID
from publisher.card.value import Row, Value, count
from publisher.errors import PublisherError

TEMPLATE = "card/base.md.j2"
_WEB = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?(?:/[A-Za-z0-9._~/%#?=&+-]*)?")
_MAIL = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_BLOCK = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?^ {0,3}\1[`~]*[ \t]*$", re.DOTALL | re.MULTILINE)
_LEFT = re.compile(r"(?<!\\)\{[{%#]|[}%]\}|\[More Information Needed\]")
_EMPTY = re.compile(r"^\|.*(?<!\\)\|[ \t]*\||^\|[ \t]*\|", re.MULTILINE)


def render(context: CardContext) -> str:
    """The card as Markdown, front matter first, one newline at the end.

    Raises:
        PublisherError: the result would not be a card (a template's fault, not the caller's).
    """
    body = _environment().get_template(TEMPLATE).render(card=context)
    card = front_matter(context.metadata) + "\n" + _spaced(str(body))
    problems = check_card(card, context)
    if problems:
        raise PublisherError("The card cannot be rendered: " + "; ".join(problems) + ".", hint="Please report this.")
    return card


def front_matter(metadata: Mapping[str, Any]) -> str:
    """The metadata block: YAML whose strings are quoted wherever any YAML version could read something else."""
    return f"---\n{jsonio.dump_yaml(dict(metadata))}---\n"


def check_card(text: str, context: CardContext | None = None) -> list[str]:
    """What is wrong with a rendered card, each a phrase; empty for a good one.

    Args:
        text: the whole README.md.
        context: what it was rendered from, to compare the metadata and the title with.
    """
    match = _FRONT.match(text)
    if match is None:
        return ["it does not begin with a metadata block"]
    found = []
    try:
        metadata = jsonio.loads_yaml(match.group(1), "the metadata block")
    except PublisherError as error:
        return [error.message.rstrip(".")]
    if context is not None and metadata != dict(context.metadata):
        found.append("its metadata does not read back as it was written")
    body = _BLOCK.sub("", text[match.end() :])
    prose = re.sub(r"(?<!\\)`[^`\n]*`", "`code`", body)
    left = _LEFT.search(prose)
    if left is not None:
        found.append(f"{left.group(0)!r} is left over")
    if _EMPTY.search(prose):
        found.append("a table has an empty cell")
    if context is not None and f"\n# {escape.text(context.title)}\n" not in body:
        found.append("its title is missing")
    return found


def templates() -> Path:
    """The folder of templates: inside the package when installed, at the top of a checkout."""
    package = Path(__file__).parent.parent
    return next(
        (place for place in (package / "templates", package.parent / "templates") if place.is_dir()),
        package / "templates",
    )


# --- details -------------------------------------------------------------------------------------------------------


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(templates()),
        undefined=StrictUndefined,
        autoescape=True,  # what `finalize` made Markup passes, so nothing reaches the card unescaped
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(code=_code, fence=_fence, hub=_hub, contact=_contact, link=_link, count=count)
    environment.filters.update(image=_image, prose=Markup, rows=_rows)  # prose is tamed where it is read into a section
    return environment


def _printed(value: Any) -> Any:
    """What `{{ value }}` prints: escaped, code where the value says so."""
    if isinstance(value, Markup | Undefined):
        return value
    if value is None or value == "":
        raise PublisherError("A template prints an empty field.", hint="Please report this.")
    if isinstance(value, Value) and value.link:
        return _link(value.text, value.link)
    if isinstance(value, Value):
        return Markup(escape.code(value.text) if value.code else escape.text(value.text))
    return Markup(escape.text(str(value)))


def _code(value: Any) -> Markup:
    return Markup(escape.code(str(value)))


def _fence(value: Any, language: str = "") -> Markup:
    return Markup(escape.fence(str(value), language))


def _hub(value: Any) -> Markup:
    """A link to a Hub repository; only text when it is no repository name."""
    name = str(value)
    return Markup(
        f"[{escape.text(name)}](https://huggingface.co/{name})" if HUB_ID.fullmatch(name) else escape.text(name)
    )


def _contact(value: Any) -> Markup:
    """A web or mail address as a link, anything else as text."""
    told = str(value)
    return Markup(f"<{told}>" if _WEB.fullmatch(told) or _MAIL.fullmatch(told) else escape.text(told))


def _link(value: Any, target: Any) -> Markup:
    """Text that leads to a web address or a file of this repository; only text where the target is neither."""
    goal = str(target)
    fine = _WEB.fullmatch(goal) or re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", goal)
    return Markup(f"[{escape.text(str(value))}](<{goal}>)" if fine else escape.text(str(value)))


def _image(picture: Picture) -> Markup:
    """A picture of the repository with its words; the alt text holds no sign of Markdown."""
    return Markup(f"![{escape.text(picture.alt)}](<{picture.path}>)")


def _rows(card: CardContext, names: Sequence[str]) -> list[Row]:
    """The rows of several groups, one after another."""
    return [row for name in names for row in card.rows[name]]


def _spaced(text: str) -> str:
    """At most one empty line between blocks, fences left as they are; no spaces at line ends."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        marks = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if marks and not fence:
            fence = marks.group(1)
        elif fence and marks and marks.group(1).startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence:
            line = line.rstrip()
            if not line and (not lines or not lines[-1]):
                continue
        lines.append(line)
    return "\n".join(lines).strip("\n") + "\n"
