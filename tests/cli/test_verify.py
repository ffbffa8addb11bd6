"""`publisher verify`: a published tree against its manifest."""

from __future__ import annotations

import shutil

from tests.cli.conftest import Workspace


def test_verify_names_the_file_that_differs(pushed: Workspace, workspace: Workspace) -> None:
    shutil.copytree(pushed.folder / "out", workspace.folder / "out")
    (workspace.tree / "LICENSE").write_bytes(b"edited")
    done = workspace.publisher("verify", "folder:out/demo/tiny-fp4", code=1)
    assert "LICENSE" in done.out
    shutil.rmtree(workspace.folder / "out")
    workspace.publisher("verify", "folder:out/demo/tiny-fp4", code=4)
    workspace.publisher("verify", "somewhere", code=2)
