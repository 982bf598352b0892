"""The warning of a jaxlib that is slow at scans with small outputs (jax issue 40101)."""

import warnings

import jax
import jax.numpy as jnp
import jaxlib.version
import pytest

import rnnscan as rs
from rnnscan._jaxpr import versions


def total(params, h, x):
    h = params * h + x
    return h, h


def run(rows=3, n_steps=1200, **options):
    """Traces one scan, which is when the warning comes; nothing runs."""
    options = {"method": "sequential", **options}
    xs = jax.ShapeDtypeStruct((n_steps, rows), jnp.float64)
    jax.eval_shape(lambda xs: rs.scan(total, 0.9, jnp.zeros(rows), xs, **options), xs)


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(versions, "JAXLIB", "0.11.1")
    monkeypatch.setattr(versions, "_slow_scan_told", set())


def test_a_slow_jaxlib_is_named_once_with_the_way_out(slow):
    with pytest.warns(UserWarning) as caught:
        run()
        run(rows=2)
    (warning,) = caught
    assert warning.filename == __file__  # points at the line of the user
    text = str(warning.message)
    for part in ("jaxlib 0.11.1 is slow", "24 bytes in each of 1200 steps", "jax issue 40101", "jaxlib 0.11.2 or newer",
                 "`unroll=22`", '`outputs="last"`'):  # fmt: skip
        assert part in text, text


@pytest.mark.parametrize(
    "options",
    [{"outputs": "last"}, {"outputs": "none"}, {"unroll": 22}, {"unroll": True}, {"rows": 64}, {"n_steps": 900},
     {"rows": 0}, {"method": "unrolled", "n_steps": 3}],
    ids=str,
)  # fmt: skip
def test_no_word_where_nothing_small_is_stacked(slow, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(**options)


@pytest.mark.parametrize("version", ["0.10.2", "0.11.0", "0.11.2", "0.12.0.1"])
def test_no_word_of_the_releases_that_are_not_slow(slow, monkeypatch, version):
    monkeypatch.setattr(versions, "JAXLIB", version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()


def test_accelerators_are_not_slow(slow, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()


def test_the_installed_version_is_what_is_looked_up():
    assert versions.JAXLIB == jaxlib.version.__version__
