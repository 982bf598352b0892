"""Every test runs in float64 with strict promotion, on four virtual CPU devices; warnings are errors (pyproject)."""

import os


os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest


jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)  # tests look at values, and compiling is what they cost


@pytest.fixture
def key():
    return jax.random.key(0)
