"""A published repository against what its publisher says, as a stranger sees it; folder and loopback Hub."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from publisher import manifest as manifests
from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.source import resolve
from publisher.hub.folder import FolderTarget
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.verification import Verification, verify
from publisher.manifest import Provenance
from tests.builders.edits import Edit, card, each, file
from tests.builders.terms import LICENSED
from tests.hub.loopback import LoopbackHub, Stored

REPO = "org/Llama-Tiny-NVFP4"
Check = Callable[..., Verification]


def keep(_: object) -> None:
    """Change nothing."""


class Published:
    """A tiny checkpoint and its source, on the loopback Hub; `edit` changes it before its manifest is made."""

    def __init__(self, hub: LoopbackHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.provenance = Provenance(gate="manual")

    def publish(self, edit: Edit = keep, *, gated: str | bool = "manual", after: Edit = keep) -> Verification:
        source, result = LICENSED["llama-nvfp4-community"]()
        upstream = self.hub.seed_repo("tiny/tiny", read(source.write(self.folder / "source")), gated="manual")
        upstream.accepted.add(self.hub.user)
        edit(result)
        made = replace(self.provenance, source_repo="tiny/tiny", source_commit=upstream.head)
        place = result.write(self.folder / "result")
        (place / "publish.json").write_bytes(manifests.build(place, made).encoded())
        after(result)
        files = read(place) | {name: data for name, data in result.files.items() if after is not keep}
        self.hub.seed_repo(REPO, files, gated=gated)
        return self.verify()

    def verify(self, token: str | None = None, revision: str = "main") -> Verification:
        mine = token or self.hub.token
        target = HuggingFaceTarget(
            REPO, endpoint=self.hub.endpoint, token=mine, revision=revision, sleep=lambda seconds: None
        )
        opened = functools.partial(resolve, endpoint=self.hub.endpoint, token=mine)
        return verify(target, lambda: opened(f"hf://{REPO}@{revision}").files, resolve=opened)


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(found: Verification) -> list[str]:
    return [f"{remark.check}: {remark.message}" for remark in found.problems]


@pytest.fixture
def made(hub: LoopbackHub, tmp_path: Path) -> Published:
    return Published(hub, tmp_path)


def test_what_is_as_it_should_be_is_verified(made: Published) -> None:
    found = made.publish()
    assert found.verified, said(found)
    assert (found.differences, found.problems, found.warnings, found.unchecked) == ((), (), (), ())
    document = found.to_json()
    assert document["verified"] is True
    assert document["settings"] == {"visibility": "public", "gate": "manual"}
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("edit", "gated", "words"),
    [
        (file("LICENSE", b"Llama, shortened"), "manual", ["licence: LICENSE differs from the source"]),
        (file("LICENSE", None), "manual", ["licence: LICENSE is missing"]),
        (file("COPYING", b"more terms"), "manual", ["licence: COPYING is not in the source"]),
        (keep, False, ["gate: The gate is off, the manifest says manual."]),
        (keep, "auto", ["gate: The gate is auto, the manifest says manual."]),
        (card("license: llama3.3", "license: mit"), "manual", ["LC02 wrong-licence-metadata"]),
        (card("base_model: tiny/tiny", "base_model: tiny/other"), "manual", ["LC03 wrong-base-model"]),
        (card("**Built with Llama**", ""), "manual", ["LC17 missing-attribution"]),
        (file("NOTICE", None), "manual", ["LC18 missing-notice"]),
        (
            each(file("legal/NOTICE.txt", b"x"), card("I agree: checkbox", "I agree: tickbox")),
            False,
            ["legal/NOTICE.txt differs", "gate: The gate is off"],
        ),
    ],
)
def test_every_difference_is_a_sentence(made: Published, edit: Edit, gated: str | bool, words: list[str]) -> None:
    found = made.publish(edit, gated=gated)
    assert not found.verified
    assert found.differences == (), "the manifest lists what is there"
    sentences = said(found)
    for word in words:
        assert any(word in sentence for sentence in sentences), sentences
    assert all(sentence.endswith((".", ")")) for sentence in sentences)


def test_files_that_were_changed_later_differ_from_the_manifest(made: Published) -> None:
    found = made.publish(after=file("LICENSE", b"edited on the Hub"))
    assert [difference.path for difference in found.differences] == ["LICENSE"]
    assert any("LICENSE differs" in sentence for sentence in said(found))


def test_a_manifest_that_names_no_gate_goes_by_the_form_of_the_card(made: Published) -> None:
    made.provenance = Provenance()
    assert made.publish().verified
    made.hub.repos[REPO].gated = False
    found = made.verify()
    assert said(found) == ["gate: The gate is off, the card has its form (extra_gated_heading)."]


def test_a_source_that_may_not_be_read_is_told_and_nothing_else(made: Published) -> None:
    made.publish()
    friend = made.hub.add_user("hf_friendToken0000000", "amy")
    made.hub.repos[REPO].accepted.add("amy")
    found = made.verify(friend)
    assert found.verified
    assert [remark.check for remark in found.unchecked] == ["licence"]
    assert "tiny/tiny" in found.unchecked[0].message
    del made.hub.repos["tiny/tiny"]
    assert [remark.check for remark in made.verify().unchecked] == ["licence"]


def test_a_waiver_that_was_published_counts(made: Published) -> None:
    made.provenance = Provenance(gate="manual", waivers={"LC17": "The owner allowed it.", "XX99": "Old.", "LC18": " "})
    found = made.publish(each(card("**Built with Llama**", ""), file("NOTICE", None)))
    assert [sentence.split()[1] for sentence in said(found)] == ["LC18"]


def test_a_folder_is_verified_as_a_repository_is(tmp_path: Path) -> None:
    source, result = LICENSED["llama-nvfp4-community"]()
    origin, root = source.write(tmp_path / "source"), tmp_path / "out"
    tree = result.write(root / REPO / "tree")
    (tree / "publish.json").write_bytes(manifests.build(tree, Provenance(gate="auto")).encoded())
    (root / REPO / "settings.json").write_text('{"visibility": "public", "gate": "auto"}')
    target = FolderTarget(root, REPO)
    found = verify(target, lambda: LocalFiles(tree), source=str(origin))
    assert found.verified, said(found)
    assert verify(target, lambda: LocalFiles(tree)).unchecked[0].message.endswith("name the source with --source.")
    (origin / "LICENSE").write_text("another")
    assert "licence: LICENSE differs" in said(verify(target, lambda: LocalFiles(tree), source=str(origin)))[0]


def test_the_tag_of_the_release_is_told(made: Published) -> None:
    found = made.publish()
    assert (found.tag, found.warnings) == (None, ())
    repo, name = made.hub.repos[REPO], f"publisher-{found.manifest.root_digest[:12]}"
    repo.tags[name] = repo.head
    assert made.verify().tag == name
    repo.add("a commit that changes nothing", dict(repo.files))
    found = made.verify()
    assert found.verified
    assert [remark.check for remark in found.warnings] == ["tag"]
    assert found.warnings[0].message.startswith(f"The tag {name} points at ")
    made.hub.fail("GET", "/refs$", times=9, status=403, body=b'{"error": "not for you"}')
    found = made.verify()
    assert found.verified
    assert [remark.check for remark in found.unchecked] == ["tag"]


def test_a_pull_request_is_verified_before_it_is_merged(made: Published) -> None:
    made.publish()
    repo = made.hub.repos[REPO]
    draft = repo.files | {"LICENSE": Stored.of(b"shortened", False)}
    repo.sides["refs/pr/3"] = list(repo.commits)
    assert made.verify(revision="refs/pr/3").verified
    repo.add("shorten", draft, "refs/pr/3")
    found = made.verify(revision="refs/pr/3")
    assert [difference.path for difference in found.differences] == ["LICENSE"]
    assert any("LICENSE differs from the source" in text for text in said(found))
    assert made.verify().verified


def test_no_repository_is_no_success(hub: LoopbackHub, tmp_path: Path) -> None:
    manifest = manifests.Manifest(files=())
    target = HuggingFaceTarget("org/nothing", endpoint=hub.endpoint, token=hub.token, sleep=lambda seconds: None)
    found = verify(FolderTarget(tmp_path, "org/nothing"), lambda: LocalFiles(tmp_path), manifest=manifest)
    assert not found.verified
    assert target.settings() is None
