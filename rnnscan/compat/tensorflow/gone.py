"""What to write for TensorFlow's names that are not here."""

from typing import Never


_GRAPH = "there is no graph and no session: a call computes, and `jax.jit` compiles it"
_JAX = "take `jax.numpy`, `jax.nn` or `jax.random`"
_TRAIN = "take an optax optimiser with `rs.train.fit`, or with `jax.value_and_grad`"
_CELLS = "take `rnn_cell.LSTMCell` or `rnn_cell.GRUCell`"
INSTEAD = {
    "static_state_saving_rnn": "the state is a value: pass the one a call returns as the `initial_state` of the next, "
    "or write `rs.scan_chunks`",
    "stack_bidirectional_rnn": "write `stack_bidirectional_dynamic_rnn`, which computes the same",
    "bidirectional_rnn": "write `static_bidirectional_rnn`",
    "rnn": "write `static_rnn`, or `contrib.rnn` for the module",
    "while_loop": "write `rs.scan_until`, or `raw_rnn` for a loop around a cell",
    "scan": "write `rs.scan`",
    "placeholder": f"arguments of a function take its place; {_GRAPH}",
    "Variable": "params are an argument: `cell.init(key, input_size)` makes a dict of arrays",
    "get_variable": "params are an argument: `cell.init(key, input_size)` makes a dict of arrays",
    "variable_scope": "params are dicts, and `scope=` of the loops is a name for profiles",
    "global_variables_initializer": "`cell.init(key, input_size)` makes params",
    "trainable_variables": "params are an argument: `rnn_cell.to_variables(cell, params)` gives their names",
    "Session": _GRAPH,
    "InteractiveSession": _GRAPH,
    "Graph": _GRAPH,
    "train": _TRAIN,
    "gradients": "write `jax.grad`",
    "set_random_seed": "randomness is an argument, `key=jax.random.key(seed)`",
    "LSTMBlockCell": _CELLS,
    "LSTMBlockFusedCell": _CELLS,
    "GRUBlockCell": _CELLS,
    "GRUBlockCellV2": _CELLS,
} | dict.fromkeys(
    ["float16", "float32", "float64", "int32", "int64", "constant", "zeros", "ones", "concat", "stack", "unstack",
     "transpose", "reshape", "reduce_mean", "reduce_sum", "matmul", "tanh", "sigmoid", "relu", "softmax"], _JAX
)  # fmt: skip


def attribute(module: str, name: str) -> Never:
    """Raises the AttributeError of a module that lacks `name`, with what to write for it."""
    where = f"rnnscan.compat.tensorflow.{module}".rstrip(".")
    hint = f": {INSTEAD[name]}." if name in INSTEAD else ""
    raise AttributeError(f"module {where!r} has no attribute {name!r}{hint}")
