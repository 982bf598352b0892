"""The original code on the migration pages, run with the original libraries, prints what the page says."""

import json
import os
import subprocess
import sys

import pytest

from tests.pages import MIGRATION, ROOT, blocks_of


SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "MPLBACKEND": "Agg",
    "KERAS_BACKEND": "torch",
    "TF_USE_LEGACY_KERAS": "1",
    "PYTENSOR_FLAGS": "mode=FAST_COMPILE,cxx=",  # a function compiles in a tenth of the time, and prints the same
}


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_original_blocks_print_what_ours_print(page):
    originals = [block for block in blocks_of(page) if block.kind == "python original"]
    assert originals, "the page shows no original"
    command = [sys.executable, ROOT / "tests" / "pages.py", page, "python original"]
    done = subprocess.run(command, env={**os.environ, **SETTINGS}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for block, text in zip(originals, json.loads(done.stdout), strict=True):
        assert text == block.printed, f"{page.name}:{block.line}"
