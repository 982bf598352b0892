"""Wrappers that add the input to what a cell puts out, and what every wrapper shares."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...._types import Rng, call, name_of
from ....wrap import _parts
from . import base
from .base import RNNCell, check_cell, check_state, no_rng_needed, scope_name
from .fields import settle_cell
from .variables import dtype_of, entry, only, split, variable


class Wrapper(RNNCell):
    """A cell around the cell in its field `cell`: its states and params are that cell's unless a wrapper says more."""

    cell: Any
    state_size = _parts.from_cell("state_size")
    transparent = False  # whether params are those of the cell, without a scope
    variables: ClassVar[tuple[str, ...]] = ()  # keys of params that are not the cell's
    x_ndim = _parts.from_cell("x_ndim", 1)
    float_input = _parts.from_cell("float_input", False)
    table = _parts.from_cell("table")  # the wrapper that looks these inputs up

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(self.cell)

    @property
    def inner(self) -> dict[str, Any]:
        """The wrapped cell by the name of its params, which is the variable scope TensorFlow gave it."""
        return {scope_name(self.cell): self.cell}

    def zero_state(self, batch_size: Any, dtype: Any = None) -> Any:
        return base.zero_state(self.cell, batch_size, dtype)

    def init(self, key: jax.Array, input_size: Any, dtype: Any = None) -> Any:
        return base.init(self.cell, key, input_size, dtype)

    def settle(self, **convert: Any) -> None:
        """For `__post_init__`."""
        settle_cell(self, **convert)
        check_cell(type(self).__name__, self.cell)
        if not self.transparent and scope_name(self.cell) in self.variables:
            raise ValueError(
                f"`{type(self).__name__}` keeps a variable {scope_name(self.cell)!r} where the params of a cell of "
                "that name would stand. Give the cell another `name`."
            )

    def run(self, params: Any, inputs: Any, state: Any, rng: Rng | None) -> tuple[Any, Any]:
        """The wrapped cell with its share of the randomness."""
        if rng is None:
            no_rng_needed(self)
        check_state(self, state)
        return call(self.cell, params, inputs, state, rng and rng.child(0))

    def run_inner(self, params: Any, inputs: Any, state: Any, rng: Rng | None) -> tuple[Any, Any]:
        """The wrapped cell with its part of the params, for a wrapper that has params of its own."""
        return self.run(params[scope_name(self.cell)], inputs, state, rng)

    def check_call(self, params: Any, state: Any, own: Iterable[str]) -> None:
        """There is a state, and params have exactly the wrapper's `own` variables and the cell's scope."""
        check_state(self, state)
        only(self, params, (*own, scope_name(self.cell)))


@dataclass(frozen=True, repr=False)
class ResidualWrapper(Wrapper):
    """`output = residual_fn(inputs, cell output)`, by default their sum, leaf by leaf; params and state are the cell's.

    Raises TypeError or ValueError if, for the sum, input and output differ in structure or shape.
    Source: `tf.nn.rnn_cell.ResidualWrapper`; Wu et al. 2016, arXiv:1609.08144, eq. 6.
    """

    cell: Any
    residual_fn: Callable[[Any, Any], Any] | None = None
    output_size = _parts.from_cell("output_size")
    transparent = True

    def __post_init__(self) -> None:
        self.settle()
        if self.residual_fn is not None and not callable(self.residual_fn):
            raise TypeError(f"`residual_fn` is a function of (inputs, outputs); got {self.residual_fn!r}.")

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        output, state = self.run(params, inputs, state, rng)
        if self.residual_fn is not None:
            return self.residual_fn(inputs, output), state
        check_alike(self, inputs, output)
        return jax.tree.map(lambda x, y: x + y, inputs, output), state


@dataclass(frozen=True, repr=False)
class HighwayWrapper(Wrapper):
    r"""`output = x_t * carry + y_t * transform`, with y the wrapped cell's output and s the logistic function:

        carry = s(x_t carry_w + carry_b)
        transform = 1 - carry,  or s(x_t transform_w + transform_b) with couple_carry_transform_gates=False

    Input and output need one size n. Params: `carry_w (n, n)`, `carry_b (n,)`, uncoupled also `transform_w (n, n)` and
    `transform_b (n,)`, and the cell's under its scope, `basic_lstm_cell` for one.
    Initial params: weights Glorot-uniform, `carry_b` is `carry_bias_init`, `transform_b` its negative.
    Source: `tf.contrib.rnn.HighwayWrapper`; Srivastava et al. 2015, arXiv:1505.00387, eq. 2-3.
    """

    cell: Any
    couple_carry_transform_gates: bool = True
    carry_bias_init: float = 1.0
    output_size = _parts.from_cell("output_size")
    variables = ("carry_w", "carry_b", "transform_w", "transform_b")
    scoped = False  # its variables stand in the scope around it

    def __post_init__(self) -> None:
        self.settle(couple_carry_transform_gates=bool, carry_bias_init=float)

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, Any]:
        if self.cell.output_size != input_size:
            raise ValueError(
                f"`{self}` mixes input and output, so both need one size; got input_size {input_size} and output_size "
                f"{self.cell.output_size}. Wrap the cell in `OutputProjectionWrapper(cell, {input_size})` first."
            )
        dtype, n = dtype_of(self, dtype), input_size
        key_cell, key_carry, key_transform = split(key, 3)
        params = {scope_name(self.cell): base.init(self.cell, key_cell, n, dtype)}
        params |= {
            "carry_w": variable(None, key_carry, (n, n), dtype),
            "carry_b": jnp.full(n, self.carry_bias_init, dtype),
        }
        if not self.couple_carry_transform_gates:
            params |= {
                "transform_w": variable(None, key_transform, (n, n), dtype),
                "transform_b": jnp.full(n, -self.carry_bias_init, dtype),
            }
        return params

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        self.check_call(params, state, self.variables[: 2 if self.couple_carry_transform_gates else 4])
        output, state = self.run_inner(params, inputs, state, rng)
        if not jax.tree_util.all_leaves([inputs]):
            raise TypeError(f"`{self}` mixes one array with one array; its input is a {type(inputs).__name__}.")
        check_alike(self, inputs, output)
        carry = self._gate(params, "carry", inputs)
        transform = 1 - carry if self.couple_carry_transform_gates else self._gate(params, "transform", inputs)
        return inputs * carry + output * transform, state

    def _gate(self, params: Any, name: str, inputs: Any) -> jax.Array:
        n = jnp.shape(inputs)[-1]
        return jax.nn.sigmoid(
            inputs @ entry(self, params, f"{name}_w", (n, n)) + entry(self, params, f"{name}_b", (n,))
        )


def check_alike(wrapper: Any, inputs: Any, output: Any) -> None:
    """Input and output have one structure and, leaf by leaf, one shape; NumPy's rules would broadcast."""
    if jax.tree.structure(inputs) != jax.tree.structure(output):
        raise TypeError(
            f"`{wrapper}` needs input and output of one structure; got {jax.tree.structure(inputs)} and "
            f"{jax.tree.structure(output)}."
        )
    for x, y in zip(jax.tree.leaves(inputs), jax.tree.leaves(output), strict=True):
        if jnp.shape(x) != jnp.shape(y):
            features = jnp.shape(x)[-1] if jnp.ndim(x) else 1
            raise ValueError(
                f"`{wrapper}` needs input and output of one shape; got {jnp.shape(x)} and {jnp.shape(y)}. Wrap the "
                f"cell in `OutputProjectionWrapper({name_of(wrapper.cell)}, {features})` first."
            )


class DeviceWrapper:
    """Placed a cell on a device in TensorFlow; raises NotImplementedError here.

    Inside a compiled loop JAX ignores a device placement in silence, so that this wrapper could only pretend. Layers on
    several devices are a matter of `rs.distributed`, which comes later.
    """

    def __init__(self, cell: Any, device: Any) -> None:
        raise NotImplementedError(
            f"`DeviceWrapper({name_of(cell)}, {device!r})`: inside a compiled loop JAX ignores a device placement in "
            "silence. Layers on several devices come with `rs.distributed`; to run the whole scan on one device, put "
            "params and inputs there with `jax.device_put`."
        )
