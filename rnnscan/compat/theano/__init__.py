"""`theano.scan` and its relatives, as translations to `rnnscan.scan_taps`."""

from typing import NoReturn

from . import scan_module as scan_module
from .folds import foldl as foldl, foldr as foldr, map as map, reduce as reduce
from .loop import scan as scan
from .step import until as until


_INSTEAD = {
    "shared": "an array is its own value: pass it as an argument, and keep the new one that comes back",
    "function": "call the Python function, or `jax.jit(function)`; there is no graph to compile",
    "tensor": "write `import jax.numpy as T`; docs/coming_from/theano.md lists the names that differ",
    "config": "write `jax.config.update(name, value)`, as in `jax.config.update('jax_enable_x64', True)`",
    "grad": "write `jax.grad(cost)(params)`, where `cost` is a function",
    "gradient": "write `jax.grad`, `jax.jacobian`, `jax.jvp`, or `jax.lax.stop_gradient` for `disconnected_grad`",
    "printing": "write `jax.debug.print('{}', value)`, or `jax.make_jaxpr(function)(*arguments)` to see the program",
    "ifelse": "write `jax.lax.cond(condition, if_true, if_false)`, or `jnp.where`",
    "clone": "call the function with other arguments",
    "Param": "write an argument with a default",
    "In": "write an argument with a default",
    "Out": "return the value",
    "OrderedUpdates": "a step that updates something takes it as a state: see `outputs_info`",
}


def __getattr__(name: str) -> NoReturn:
    """What to write for the names of Theano that have no place here."""
    if name in _INSTEAD:
        raise AttributeError(f"`theano.{name}` is not in rnnscan.compat.theano: {_INSTEAD[name]}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
