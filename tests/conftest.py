"""Every test runs in float64 with strict promotion, on four virtual CPU devices; warnings are errors (pyproject)."""

import contextlib
import ctypes
import os
import random
from importlib.metadata import version
from pathlib import Path


os.environ.setdefault("MPLBACKEND", "Agg")


# Compiling is what the tests cost, and without these emitters it takes a third of the time. The parallel processes of
# a run inherit the setting. XLA has dropped the flag with jaxlib 0.12, and ends a process that gives an unknown one.
if "XLA_FLAGS" not in os.environ and tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"

import jax
import pytest


jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)  # tests look at values, and compiling is what they cost


def pytest_addoption(parser):
    parser.addoption("--cells", choices=("tenth", "full"), default="tenth", help="how many random cells to try")
    parser.addoption("--cells-seed", default="0", help="the seed of the random cells: an int, or `random`")


def pytest_configure(config):
    """One seed for the whole run: a worker takes the one that the main process chose."""
    seed = getattr(config, "workerinput", {}).get("cells_seed", config.option.cells_seed)
    config.option.cells_seed = random.SystemRandom().randrange(10**6) if seed == "random" else int(seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["cells_seed"] = node.config.option.cells_seed


def pytest_report_header(config):
    return f"random cells: {config.option.cells}, seed {config.option.cells_seed}"


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _bounded_memory():
    """Compiled programs pile up over thousands of tests; a worker of over 2 GB forgets them (on Linux)."""
    yield
    pages = Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 2e9:
        jax.clear_caches()
        with contextlib.suppress(OSError, AttributeError):  # what was freed goes back, where the C library can do that
            ctypes.CDLL("libc.so.6").malloc_trim(0)
