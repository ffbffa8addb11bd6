"""The two trees of a repository in a folder: the published one, and the draft of the next beside it.

A draft shares the bytes of what it starts from until they are replaced, says which files it is for, and takes the
place of the published tree in one step. Whatever a kill leaves behind lies under names that mean nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from publisher.hub import disk
from publisher.hub.exchange import exchange

TREE = "tree"
DRAFT = "draft"
KEY = ".publisher-draft"  # in a draft: which files it is for; never part of a tree that is published
RETIRED = ".retired"  # a tree that was replaced and is being removed


class Trees:
    """The trees below one folder.

    Args:
        base: the repository's folder.
    """

    def __init__(self, base: Path) -> None:
        self.published, self.draft, self._retired = base / TREE, base / DRAFT, base / RETIRED

    def key(self) -> str | None:
        """Which files the draft is for; None where there is none that was begun whole."""
        try:
            return (self.draft / KEY).read_text()
        except OSError:
            return None

    def begin(self, key: str) -> None:
        """A draft with the files of the published tree."""
        shutil.rmtree(self.draft, ignore_errors=True)
        self.draft.mkdir(parents=True)
        for path in disk.files(self.published):
            if not path.is_symlink():
                copy = self.draft / path.relative_to(self.published)
                copy.parent.mkdir(parents=True, exist_ok=True)
                disk.link(path, copy)
        (self.draft / KEY).write_text(key)

    def give_up(self) -> None:
        """Remove the draft."""
        shutil.rmtree(self.draft, ignore_errors=True)
        shutil.rmtree(self._retired, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed push left: a tree that was replaced, and a draft of nothing."""
        shutil.rmtree(self._retired, ignore_errors=True)
        if not (self.draft / KEY).exists():
            shutil.rmtree(self.draft, ignore_errors=True)

    def swap(self) -> bool:
        """Give the draft the published tree's name, and the other way round, in one step.

        Returns:
            False where the file system cannot; then nothing is changed but that the draft is ready for `replace`.
        """
        (self.draft / KEY).unlink(missing_ok=True)
        return exchange(self.published, self.draft)

    def replace(self) -> None:
        """The same in several steps, between which there may be no published tree."""
        shutil.rmtree(self._retired, ignore_errors=True)
        os.rename(self.published, self._retired)
        os.rename(self.draft, self.published)
        os.rename(self._retired, self.draft)

    def retire(self) -> None:
        """Remove what was replaced; a kill in the middle leaves it under a name that means nothing."""
        shutil.rmtree(self._retired, ignore_errors=True)
        os.rename(self.draft, self._retired)
        shutil.rmtree(self._retired, ignore_errors=True)
