"""TensorFlow 1's full LSTM: peepholes, a clipped memory, a projected and clipped output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ....cells import initial
from .base import LSTMStateTuple, RNNCell, check_state
from .fields import activate, settle_cell
from .lstm import join_state, split_state
from .variables import dtype_of, entry, features, linear, only, split, variable


_PEEPHOLES = ("w_f_diag", "w_i_diag", "w_o_diag")


@dataclass(frozen=True, repr=False)
class LSTMCell(RNNCell):
    r"""Long short-term memory, output `m_t`, state `(c_t, m_t)`, with s the logistic function:

        i, j, f, o = split([x_t; m_{t-1}] kernel + bias)
        c_t = s(f + forget_bias + w_f * c_{t-1}) * c_{t-1} + s(i + w_i * c_{t-1}) * g(j),  then clipped to +-cell_clip
        m_t = s(o + w_o * c_t) * g(c_t) proj,  clipped to +-proj_clip

    The `w` terms are there with `use_peepholes`, `proj` with `num_proj`. The gate o sees the clipped `c_t`.

    Shapes: `x (..., input_size)`, `c (..., num_units)`, `m (..., num_proj or num_units)`, any leading batch axes.
    Params: `kernel (input_size + size of m, 4 * num_units)`, `bias (4 * num_units,)`; with `use_peepholes` `w_f_diag`,
    `w_i_diag`, `w_o_diag` `(num_units,)`; with `num_proj` `projection: {kernel (num_units, num_proj)}`.

    `cell_clip`, `proj_clip`: None or a number >= 0; `proj_clip` needs `num_proj`.
    `initializer`: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`, for all but the bias; None is
    Glorot-uniform. `num_unit_shards`, `num_proj_shards`: must be None; `jax.sharding` splits arrays.
    `forget_bias`, `state_is_tuple`, `activation`, `reuse`, `name`, `dtype`: as in `BasicLSTMCell`.
    Source: `tf.nn.rnn_cell.LSTMCell`; Sak et al. 2014, arXiv:1402.1128, eq. 1-6.
    """

    num_units: int
    use_peepholes: bool = False
    cell_clip: float | None = None
    initializer: Callable[..., Any] | None = None
    num_proj: int | None = None
    proj_clip: float | None = None
    num_unit_shards: None = None
    num_proj_shards: None = None
    forget_bias: float = 1.0
    state_is_tuple: bool = True
    activation: str | Callable[[Any], Any] | None = None
    reuse: bool | None = None
    name: str | None = None
    dtype: Any = None
    float_input = True

    def __post_init__(self) -> None:
        settle_cell(
            self,
            num_units=initial.size,
            use_peepholes=bool,
            cell_clip=_bound("cell_clip"),
            num_proj=lambda n: None if n is None else initial.size(n),
            proj_clip=_bound("proj_clip"),
            num_unit_shards=_unsharded("num_unit_shards"),
            num_proj_shards=_unsharded("num_proj_shards"),
            forget_bias=float,
            state_is_tuple=bool,
        )
        if self.proj_clip is not None and self.num_proj is None:
            raise ValueError(f"`LSTMCell(proj_clip={self.proj_clip})` clips the projection; give `num_proj` too.")

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.num_units if self.num_proj is None else self.num_proj

    @property
    def state_size(self) -> Any:  # type: ignore[override]
        sizes = (self.num_units, self.output_size)
        return LSTMStateTuple(*sizes) if self.state_is_tuple else sum(sizes)

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, Any]:
        dtype, n = dtype_of(self, dtype), self.num_units
        keys = iter(split(key, 5))
        make = lambda *shape: variable(self.initializer, next(keys), shape, dtype)
        params: dict[str, Any] = {
            "kernel": make(features(input_size) + self.output_size, 4 * n),
            "bias": jnp.zeros(4 * n, dtype),
        }
        if self.use_peepholes:
            params |= {name: make(n) for name in _PEEPHOLES}
        if self.num_proj is not None:
            params["projection"] = {"kernel": make(n, self.num_proj)}
        return params

    def __call__(self, params: Any, inputs: Any, state: Any = None) -> tuple[jax.Array, Any]:
        check_state(self, state)
        peepholes, projected = _PEEPHOLES if self.use_peepholes else (), self.num_proj is not None
        only(self, params, ("kernel", "bias", *peepholes, *["projection"] * projected))
        w_f, w_i, w_o = (entry(self, params, name, (self.num_units,)) for name in peepholes) if peepholes else [0.0] * 3
        c_tm1, m_tm1 = split_state(self, state, (self.num_units, self.output_size))
        i, j, f, o = jnp.split(linear(self, params, inputs, m_tm1, units=4 * self.num_units), 4, axis=-1)
        f = f + self.forget_bias
        if self.use_peepholes:
            f, i = f + w_f * c_tm1, i + w_i * c_tm1
        c_t = jax.nn.sigmoid(f) * c_tm1 + jax.nn.sigmoid(i) * activate(self.activation, j)
        if self.cell_clip is not None:
            c_t = jnp.clip(c_t, -self.cell_clip, self.cell_clip)
        if self.use_peepholes:
            o = o + w_o * c_t
        m_t = jax.nn.sigmoid(o) * activate(self.activation, c_t)
        if self.num_proj is not None:
            own = only(self, params["projection"], ("kernel",), "projection")
            m_t = linear(self, own, m_t, units=self.num_proj, scope="projection", bias=False)
            if self.proj_clip is not None:
                m_t = jnp.clip(m_t, -self.proj_clip, self.proj_clip)
        return m_t, join_state(self, c_t, m_t)


def _bound(name: str) -> Callable[[Any], float | None]:
    def check(value: Any) -> float | None:
        if value is None:
            return None
        if not float(value) >= 0:  # false for NaN too
            raise ValueError(f"`LSTMCell` clips to [-{name}, {name}], so it must be >= 0; got {value!r}.")
        return float(value)

    return check


def _unsharded(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value is not None:
            raise NotImplementedError(
                f"`LSTMCell({name}={value!r})` split a variable over parameter servers. Params are arrays here: place "
                f"them with `jax.device_put(params, jax.sharding.NamedSharding(...))`, and leave `{name}` out."
            )

    return check
