"""The oracle tests need other libraries, so they run where these are installed and say what to do elsewhere."""

import importlib.util
import os
import pathlib
import random
from collections import Counter

import pytest


REASON = "torch is not installed: run .ci/run, which keeps an environment of peers"

os.environ.setdefault("KERAS_BACKEND", "torch")  # the backend whose masks follow Keras' own rules
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # what `tf.compat.v1.nn.rnn_cell` is made of
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--programs", choices=("tenth", "full"), default="tenth", help="how many random programs to try")
    parser.addoption("--programs-seed", default="0", help="the seed of the random programs: an int, or `random`")


def pytest_configure(config: pytest.Config) -> None:
    """One seed for the whole run: a worker takes the one that the main process chose."""
    if hasattr(config, "workerinput"):
        config.option.programs_seed = config.workerinput["programs_seed"]
    elif config.option.programs_seed == "random":
        config.option.programs_seed = random.SystemRandom().randrange(10**6)
    else:
        config.option.programs_seed = int(config.option.programs_seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["programs_seed"] = node.config.option.programs_seed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tried: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.getreports("passed"):
        for kind, value in report.user_properties:
            if kind == "programs":
                tried[pathlib.Path(report.fspath).name, value[0]] += value[1]
    if not tried:
        return
    terminalreporter.section(f"random programs, seed {config.option.programs_seed}")
    for (file, name), count in sorted(tried.items()):
        terminalreporter.write_line(f"{count:6d}  {file}: {name}")


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
