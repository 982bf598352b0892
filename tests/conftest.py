"""Every test runs in float64 with strict promotion, on four virtual CPU devices; warnings are errors (pyproject)."""

import contextlib
import ctypes
import importlib.util
import mmap
import os
from pathlib import Path


os.environ.setdefault("MPLBACKEND", "Agg")


def _xla_knows(flag: str) -> bool:
    """Whether this release's compiler has a flag, by its name in the library: an unknown one would end the process."""
    places = getattr(importlib.util.find_spec("jaxlib"), "submodule_search_locations", None) or ()
    for library in (path for place in places for path in Path(place).glob("*jax_common.*")):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(flag.encode()) >= 0
    return False


# Compiling is what the tests cost, and without these emitters it takes a third of the time. The parallel processes of
# a run inherit the setting.
if "XLA_FLAGS" not in os.environ and _xla_knows("xla_cpu_use_fusion_emitters"):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"

import jax  # noqa: E402  after the settings that it reads when it starts
import pytest  # noqa: E402


jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)  # tests look at values, and compiling is what they cost


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
