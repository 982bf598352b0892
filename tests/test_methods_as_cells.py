"""A method of an object is a cell as well: compiled once, and anew when the object has changed."""

import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import count_compiles


class Layer:
    def __init__(self, weight):
        self.weight = weight

    def step(self, params, h, x):
        del params
        h = h + self.weight * x
        return h, h

    def twice(self, params, h, x):
        """A method that calls another."""
        return self.step(params, self.step(params, h, x)[0], x)


XS = np.arange(1.0, 5.0)


@pytest.mark.parametrize(("name", "times"), [("step", 1), ("twice", 2)])
def test_a_method_is_compiled_once(name, times):
    layer = Layer(jnp.array(3.0))
    run = lambda xs: rs.scan(getattr(layer, name), None, 0.0, xs)[0].item()
    run(XS)
    with count_compiles() as compiled:
        assert run(2 * XS) == 60.0 * times
    assert compiled == []
    layer.weight = jnp.array(5.0)
    assert run(XS) == 50.0 * times


def test_methods_of_two_objects_are_two_cells():
    one, other = Layer(jnp.array(3.0)), Layer(jnp.array(4.0))
    assert [rs.scan(layer.step, None, 0.0, XS)[0].item() for layer in (one, other, one)] == [30.0, 40.0, 30.0]
