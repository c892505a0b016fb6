"""Statistics need no drawing library, and importing the page draws nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["page", "analysis", "score_tables", "figures", "grid"])
def test_matplotlib_and_torch_are_imported_late(module):
    program = (
        f"import sys, trustvlm.benchmark.{module}; "
        "print(sorted({'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
