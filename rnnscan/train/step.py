"""One step of training, compiled: loss, gradient, clipping, optimiser; `fit` and hand-written loops share it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._errors import ParamsError
from .._inputs import check_key
from .._tree import describe, named_leaves


Loss = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Step:
    """What `make_step` returns: `init(params) -> opt_state`, and the step itself as a call."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, Any], tuple[Any, Any, dict[str, Any]]]

    def __call__(self, params: Any, opt_state: Any, batch: Any, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        """`(params, opt_state, metrics)` after one step on `batch`; see `make_step`."""
        return self.update(params, opt_state, batch, check_key(key))


def make_step(loss: Loss, optimizer: optax.GradientTransformation, *, clip_norm: float | None = None) -> Step:
    """A compiled training step, for people who write their own loop.

        step = rs.train.make_step(loss, optax.adam(1e-3), clip_norm=1.0)
        opt_state = step.init(params)
        for k, batch in enumerate(batches):
            params, opt_state, metrics = step(params, opt_state, batch, jax.random.fold_in(key, k))

    `loss(params, batch, key)` returns a real scalar, or `(scalar, aux)`. `metrics` is a dict of

    * `loss`: the scalar, at the params given;
    * `grad_norm`: the gradient's norm over all leaves, before clipping;
    * `finite`: False where the loss or the update was NaN or infinite. Such a step changes nothing: params and
      opt_state come back as they were. An optimiser inside `optax.apply_if_finite` decides about the loss itself, and
      only an update that is still not finite after it counts;
    * `aux`: what the loss returned beside the scalar, else None.

    Main arguments: `loss`; `optimizer`, any optax transformation, line searches such as `optax.lbfgs()` included (they
    get `value`, `grad` and `value_fn` for this batch and key).
    Other arguments: `clip_norm`, the largest norm of the gradient (`optax.clip_by_global_norm`; Pascanu et al. 2013,
    arXiv:1211.5063, section 3.2), applied before the optimiser. The optimiser's state has the same form with it and
    without it.

    A learning rate that changes must not be a new Python number in a new optimiser, for which the step compiles
    anew. Write a schedule (`optax.adam(optax.cosine_decay_schedule(1e-3, 1000))`), or
    `optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)` and set `opt_state.hyperparams["learning_rate"]`.

    Complex params are stepped along the conjugate of JAX's gradient, which is the direction of steepest ascent.

    Raises: `ParamsError` for a leaf that is no floating-point array, TypeError for a loss that is no real number,
    ValueError for one that is no scalar, for `clip_norm <= 0` and for a key that is none.
    """
    init, update = make_update(loss, optimizer, clip_norm)
    return Step(init, jax.jit(lambda params, opt_state, batch, key: update(params, opt_state, batch, key, True)))


def make_update(loss: Loss, optimizer: Any, clip_norm: float | None) -> tuple[Callable, Callable]:
    """`init(params)` and `update(params, opt_state, batch, key, alive)`, the step before it is compiled.

    Where `alive` is False nothing changes and `metrics["finite"]` is False: once a run has failed it stays failed.
    """
    _check(loss, optimizer, clip_norm)
    optimizer = optax.with_extra_args_support(optimizer)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)

    def init(params):
        check_params(params)
        with _optax_rules():
            return optimizer.init(params)

    def update(params, opt_state, batch, key, alive):
        check_params(params)
        value_and_aux = lambda p: scalar_and_aux(_call(loss, p, batch, key))
        (value, aux), grads = jax.value_and_grad(value_and_aux, has_aux=True)(params)
        grads = jax.tree.map(jnp.conj, grads)
        extra = {"value": value, "grad": grads, "value_fn": lambda p: value_and_aux(p)[0]}
        with _optax_rules():
            grad_norm = optax.tree.norm(grads)
            clipped, _ = clip.update(grads, clip.init(params), params)
            updates, new_state = optimizer.update(clipped, opt_state, params, **extra)
            new = (optax.apply_updates(params, updates), new_state)
        finite = alive & _all_finite(updates)
        if not _skips_non_finite(opt_state):
            finite = finite & jnp.isfinite(value)
        params, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, (params, opt_state))
        return params, opt_state, {"loss": value, "grad_norm": grad_norm, "finite": finite, "aux": aux}

    return init, update


def check_params(params: Any) -> None:
    """Every leaf must be something that a gradient step can move."""
    leaves = named_leaves("params", params)
    if not leaves:
        raise ParamsError(f"`params` has no leaves, so there is nothing to train; got {params!r}.")
    for name, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if not isinstance(leaf, float | complex) and (dtype is None or not jnp.issubdtype(dtype, jnp.inexact)):
            raise ParamsError(
                f"`{name}` is {describe(leaf)}; an optimiser moves floating-point arrays only. Keep other things out "
                "of params: close over them, or hand them in with the batch."
            )


def scalar_and_aux(result: Any) -> tuple[jax.Array, Any]:
    """What a loss returned, as `(scalar, aux)`; anything but a real scalar raises."""
    value, aux = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(value, float | jax.Array):
        hint = " Is a `return` missing?" if value is None else ""
        raise TypeError(f"`loss` must return a scalar or (scalar, aux), got {describe(value)}.{hint}")
    value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(
            f"`loss` must return a scalar or (scalar, aux), got {describe(value)}. Reduce it: `jnp.mean(...)`, or "
            "`rs.train.masked_mean(..., lengths=lengths)` for padded sequences."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"`loss` must return a real floating-point number, got {describe(value)}. Write `jnp.abs(z)**2` or "
            "`z.real` of a complex number, and `.astype(float)` of a whole one."
        )
    return value, aux


def _call(loss, params, batch, key):
    """`loss(params, batch, key)`; a note on an error says what it got, since the call stands in our code."""
    try:
        return loss(params, batch, key)
    except Exception as error:
        leaves = [f"{name}: {describe(leaf)}" for name, leaf in named_leaves("batch", batch)] or ["batch: None"]
        more = f", and {len(leaves) - 12} more leaves" if len(leaves) > 12 else ""
        error.add_note(
            f"raised by the loss, which `fit` and `make_step` call as `loss(params, batch, key)`; it got "
            f"{', '.join(leaves[:12])}{more}, key: {describe(key)}"
        )
        raise


def _check(loss, optimizer, clip_norm):
    if not callable(loss):
        raise TypeError(f"`loss` must be a function of (params, batch, key), got {describe(loss)}.")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`optimizer` must come from optax, such as `optax.adam(1e-3)`; got {describe(optimizer)}.")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"`clip_norm` must be > 0, got {clip_norm}; leave it out for no clipping.")


def _optax_rules():
    # With `jax_numpy_dtype_promotion="strict"`, as in our tests, optax 0.2.8 fails on itself: Adam computes 0.9**int32.
    return jax.numpy_dtype_promotion("standard")


def _all_finite(tree):
    return jax.tree.reduce(lambda a, leaf: a & jnp.all(jnp.isfinite(leaf)), tree, jnp.asarray(True))


def _skips_non_finite(opt_state):
    is_state = lambda node: isinstance(node, optax.ApplyIfFiniteState)
    return any(is_state(node) for node in jax.tree.leaves(opt_state, is_leaf=is_state))
