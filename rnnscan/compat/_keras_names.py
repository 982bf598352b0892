"""What to write instead of the other functions of Keras' backend, for whoever has imported `rnn` as `K.rnn`."""

_SAME = (
    "abs all any arange clip cos dot equal exp eye greater greater_equal less less_equal log max maximum mean min "
    "minimum not_equal ones ones_like prod reshape round sign sin sqrt square squeeze stack std sum tanh tile "
    "transpose var zeros zeros_like"
)
_SAME_IN_NN = "elu logsumexp one_hot relu sigmoid softmax softplus"

INSTEAD: dict[str, str] = {
    **{name: f"jnp.{name}" for name in _SAME.split()},
    **{name: f"jax.nn.{name}" for name in _SAME_IN_NN.split()},
    "argmax": "jnp.argmax(x, -1)",
    "argmin": "jnp.argmin(x, -1)",
    "batch_dot": "jnp.einsum",
    "batch_flatten": "x.reshape(len(x), -1)",
    "bias_add": "x + bias",
    "binary_crossentropy": "optax.sigmoid_binary_cross_entropy, of logits",
    "cast": "x.astype(dtype)",
    "categorical_crossentropy": "optax.softmax_cross_entropy, of logits",
    "concatenate": "jnp.concatenate(tensors, -1)",
    "constant": "jnp.asarray",
    "cumprod": "jnp.cumprod(x, 0)",
    "cumsum": "jnp.cumsum(x, 0)",
    "dropout": "rs.wrap.Dropout",
    "dtype": "x.dtype",
    "eval": "np.asarray",
    "expand_dims": "jnp.expand_dims(x, -1)",
    "flatten": "x.ravel()",
    "floatx": "x.dtype",
    "function": "jax.jit",
    "gather": "reference[indices]",
    "get_value": "np.asarray",
    "gradients": "jax.grad",
    "hard_sigmoid": "jnp.clip(0.2 * x + 0.5, 0, 1)",
    "int_shape": "x.shape",
    "map_fn": "jax.lax.map",
    "ndim": "x.ndim",
    "permute_dimensions": "jnp.transpose",
    "pow": "jnp.power",
    "print_tensor": "jax.debug.print",
    "random_normal": "jax.random.normal",
    "random_uniform": "jax.random.uniform",
    "repeat": "jnp.repeat(x[:, None], n, 1)",
    "repeat_elements": "jnp.repeat",
    "reverse": "jnp.flip",
    "shape": "x.shape",
    "softsign": "jax.nn.soft_sign",
    "sparse_categorical_crossentropy": "optax.softmax_cross_entropy_with_integer_labels, of logits",
    "stop_gradient": "jax.lax.stop_gradient",
    "switch": "jnp.where",
    "variable": "jnp.asarray",
}
"""Name in `keras.backend` -> JAX's function or expression; where Keras' default axis is another one it is written."""

FOREIGN: dict[str, tuple[str, str]] = {
    "carry": ("`rs.scan`'s", "`initial_states=[state]`"),
    "xs": ("`rs.scan`'s", "`inputs=`"),
    "params": ("`rs.scan`'s", "`constants=`, or let the step close over them"),
    "lengths": ("`rs.scan`'s", "`input_length=`"),
    "sequence_length": ("TensorFlow's", "`input_length=`"),
    "reverse": ("`rs.scan`'s", "`go_backwards=True`, whose outputs stand in the order they were made"),
    "time_axis": ("`rs.scan`'s", "`time_major=True` where time comes first; it comes second by default"),
    "masked_output": ("`rs.scan`'s", "`zero_output_for_mask=True` for zeros; the output before is repeated by default"),
    "return_sequences": ("the layers'", "`return_all_outputs=`"),
    "return_state": ("the layers'", "nothing: `(last_output, outputs, new_states)` are returned always"),
}
"""Keyword that `rnn` does not take -> whose it is, and what to write instead."""


def instead_of(name: str) -> str:
    """The text of the AttributeError for an attribute that this module has not got."""
    if name in INSTEAD:
        return f"`rs.compat.keras` has `rnn` and nothing else of Keras' backend; for `K.{name}` write `{INSTEAD[name]}`"
    return f"module 'rnnscan.compat.keras' has no attribute {name!r}"
