"""The oracle tests need other libraries, so they run where these are installed and say what to do elsewhere."""

import importlib.util
import pathlib

import pytest


REASON = "torch is not installed: run .ci/run, which keeps an environment of peers"


def pytest_pycollect_makemodule(module_path: pathlib.Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Without torch, each module of this folder becomes one skipped test instead of an error on import."""
    if importlib.util.find_spec("torch") is None:
        return SkippedModule.from_parent(parent, path=module_path)
    return None


class SkippedModule(pytest.File):
    def collect(self):
        yield SkippedTest.from_parent(self, name="needs torch")


class SkippedTest(pytest.Item):
    def runtest(self):
        pytest.skip(REASON)
