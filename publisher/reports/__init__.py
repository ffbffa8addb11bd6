"""Reports: what the rules found, told to people, to programs and to CI systems.

`REPORTS` is the whole list; each is a function from a `Validation` to text, and prints nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from publisher.reports import documents, github, html, human, junit, markdown, sarif
from publisher.reports.validation import Form

REPORTS: Mapping[str, Form] = {
    "human": Form(write=human.write, told="plain text, every place listed"),
    "json": Form(write=documents.write_json, told="one JSON document"),
    "jsonl": Form(write=documents.write_jsonl, told="one JSON object a finding, then a summary"),
    "sarif": Form(write=sarif.write, told="SARIF 2.1.0 for code scanning"),
    "junit": Form(write=junit.write, told="JUnit XML for CI systems"),
    "github": Form(write=github.write, told="annotations of a GitHub workflow"),
    "markdown": Form(write=markdown.write, told="a comment on a pull request"),
    "html": Form(write=html.write, told="one page with pictures, no script, nothing to load", pictures=True),
}
