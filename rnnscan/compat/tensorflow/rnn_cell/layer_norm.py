"""LSTM with layer normalisation and recurrent dropout, from TensorFlow 1's contrib."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...._types import Rng
from ....cells import initial
from .base import LSTMStateTuple, RNNCell, check_state, no_rng_needed
from .fields import activate, keep_probability, keep_some, refuse_arrays, seed_number, seeded, settle_cell, unused
from .lstm import split_state
from .variables import dtype_of, entry, features, linear, only, split, variable


_NORMED = ("input", "transform", "forget", "output", "state")


@dataclass(frozen=True, repr=False)
class LayerNormBasicLSTMCell(RNNCell):
    r"""Long short-term memory, output `h_t`, state `(c_t, h_t)`, with s the logistic function, N layer normalisation:

        i, j, f, o = split([x_t; h_{t-1}] kernel),  each through N of its own
        c_t = N(s(f + forget_bias) * c_{t-1} + s(i) * dropout(g(j)))
        h_t = s(o) * g(c_t)
        N(a) = gamma * (a - mean(a)) / sqrt(var(a) + 1e-12) + beta,  over the features (1e-3 for float16)

    The state keeps the *normalised* `c_t`, as contrib did. Without `layer_norm` N is left out, and there is a `bias`.

    Shapes: `x (..., input_size)`, `c` and `h` `(..., num_units)`, any leading batch axes.
    Params: `kernel (input_size + num_units, 4 * num_units)`, and `{gamma, beta}`, each `(num_units,)`, under `input`
    (i), `transform` (j), `forget` (f), `output` (o) and `state` (c); without `layer_norm` `bias (4 * num_units,)`.

    `norm_gain`, `norm_shift`: initial gamma and beta; they raise with `layer_norm=False`, which contrib ignored.
    `dropout_keep_prob`: share of `g(j)` kept, fresh masks each step (then `rng` is needed). `dropout_prob_seed`: sets
    its numbers apart from those of other cells with the same key. `input_size`: must be None.
    `forget_bias`, `activation`, `reuse`: as in `BasicLSTMCell`.
    Initial params: kernel and `bias` Glorot-uniform, both as contrib's `get_variable` made them.
    Source: `tf.contrib.rnn.LayerNormBasicLSTMCell`; Ba et al. 2016, arXiv:1607.06450; Semeniuta et al. 2016,
    arXiv:1603.05118, section 3.
    """

    num_units: int
    forget_bias: float = 1.0
    input_size: None = None
    activation: str | Callable[[Any], Any] = "tanh"
    layer_norm: bool = True
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    dropout_keep_prob: float = 1.0
    dropout_prob_seed: int | None = None
    reuse: bool | None = None
    float_input = True
    state_is_tuple: ClassVar[bool] = True
    noise_off: ClassVar[dict[str, Any]] = {"dropout_keep_prob": 1.0}

    def __post_init__(self) -> None:
        refuse_arrays(self, *self.noise_off)
        settle_cell(
            self,
            num_units=initial.size,
            forget_bias=float,
            input_size=unused(self, "input_size", "the input's size comes with `init(key, input_size)`"),
            layer_norm=bool,
            norm_gain=float,
            norm_shift=float,
            dropout_keep_prob=keep_probability(self, "dropout_keep_prob"),
            dropout_prob_seed=seed_number,
        )
        if not self.layer_norm and (self.norm_gain, self.norm_shift) != (1.0, 0.0):
            raise ValueError(
                f"`{self}`: `norm_gain` and `norm_shift` are those of the layer normalisation that `layer_norm=False` "
                "leaves out. Leave them out too."
            )

    @property
    def state_size(self) -> LSTMStateTuple:  # type: ignore[override]
        return LSTMStateTuple(self.num_units, self.num_units)

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.num_units

    @property
    def stochastic(self) -> bool:
        return self.dropout_keep_prob < 1

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, Any]:
        dtype, n = dtype_of(self, dtype), self.num_units
        key_kernel, key_bias = split(key)
        params: dict[str, Any] = {"kernel": variable(None, key_kernel, (features(input_size) + n, 4 * n), dtype)}
        if not self.layer_norm:
            return params | {"bias": variable(None, key_bias, (4 * n,), dtype)}
        for name in _NORMED:
            params[name] = {"gamma": jnp.full(n, self.norm_gain, dtype), "beta": jnp.full(n, self.norm_shift, dtype)}
        return params

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[jax.Array, Any]:
        if rng is None:
            no_rng_needed(self)
        check_state(self, state)
        only(self, params, ("kernel", *_NORMED) if self.layer_norm else ("kernel", "bias"))
        c_tm1, h_tm1 = split_state(self, state, (self.num_units, self.num_units))
        gates = linear(self, params, inputs, h_tm1, units=4 * self.num_units, bias=not self.layer_norm)
        i, j, f, o = jnp.split(gates, 4, axis=-1)
        i, j, f, o = (self._norm(params, name, a) for name, a in zip(_NORMED, (i, j, f, o), strict=False))
        g = activate(self.activation, j)
        if rng is not None and self.stochastic:
            g = keep_some(g, self.dropout_keep_prob, seeded(rng, self.dropout_prob_seed).per_step(), g.shape)
        c_t = jax.nn.sigmoid(f + self.forget_bias) * c_tm1 + jax.nn.sigmoid(i) * g
        c_t = self._norm(params, "state", c_t)
        h_t = jax.nn.sigmoid(o) * activate(self.activation, c_t)
        return h_t, LSTMStateTuple(c_t, h_t)

    def _norm(self, params: Any, name: str, a: Any) -> Any:
        if not self.layer_norm:
            return a
        scale = only(self, params[name], ("gamma", "beta"), name)
        gamma, beta = (entry(self, scale, part, (self.num_units,), name) for part in ("gamma", "beta"))
        epsilon = 1e-3 if a.dtype == jnp.float16 else 1e-12
        off = a - a.mean(-1, keepdims=True)
        spread = jax.lax.rsqrt((off * off).mean(-1, keepdims=True) + epsilon)
        return off * spread * gamma + beta
