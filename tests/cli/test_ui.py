"""`publisher ui`: said plainly when the browser app's library is missing."""

from __future__ import annotations

import subprocess
import sys


def test_without_gradio_it_says_what_to_install() -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gradio' else real(name, *a)\n"
        "from publisher.cli import main; main(['ui'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 5
    assert "fp4-publisher[ui]" in done.stderr
