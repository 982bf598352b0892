"""The training loop: batches in, params and a history out; a bar, evaluation, early stopping and a stop at NaN."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._errors import NonFiniteError
from .._inputs import check_key
from ._checks import check_count
from ._compiled import compiled, like, strong
from ._judge import Judge
from ._source import EpochEnd, Source
from .progress import Bar
from .step import Loss, check_params


class Fit(NamedTuple):
    """What `fit` returns; `history` is a dict of NumPy arrays, described there."""

    params: Any
    opt_state: Any
    history: dict[str, Any]


def fit(
    loss: Loss,
    params: Any,
    optimizer: optax.GradientTransformation,
    batches: Any,
    *,
    key: Any,
    epochs: int | None = None,
    n_steps: int | None = None,
    clip_norm: float | None = None,
    opt_state: Any = None,
    evaluate: Callable[[Any], Any] | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    progress: bool = True,
    callback: Callable[[int, Any, dict[str, Any]], Any] | None = None,
) -> Fit:
    """Minimises `loss` over batches: step k does `params += optimizer(grad loss(params, batch_k, fold_in(key, k)))`.

    Main arguments:
    * `loss(params, batch, key)` -> real scalar, or `(scalar, aux)`.
    * `optimizer`: any optax transformation. About a learning rate that changes see `make_step`; a second `fit` with the
      same loss (a function defined once) and the same optimizer object compiles nothing.
    * `batches`: a list of batches, or any other thing that can be iterated anew every epoch; `rs.train.batches` or
      `rs.train.bucket`; a function `epoch_key -> iterable`, called every epoch (with a key derived from `key`); or an
      iterator or generator, for one epoch only. `[batch]` is training on one batch, the whole data for example.
    * `key`: the one source of randomness. The same key and arguments give the same result to the last bit.

    Other arguments:
    * `epochs`, `n_steps`: passes through `batches`, and steps in all; whichever ends first. Without both, 1 epoch.
    * `clip_norm`: the gradient's largest norm, see `make_step`.
    * `opt_state`: goes on with this state instead of `optimizer.init(params)`. Use a new key then, or the steps get
      the same randomness again.
    * `evaluate(params)` -> float, or dict of floats: called after every epoch, or after every `evaluate_every` steps,
      and after the last step. It is not compiled for you: put `jax.jit` where it counts.
    * `patience`: stop after so many evaluations in a row none of which was more than `min_delta` below the best one.
      What counts is evaluate's "loss" if it returns one, else its first value; lower is better. With `patience`,
      params and opt_state are those of the best evaluation, in every case.
    * `progress`: a bar on stderr with steps a second and the latest loss.
    * `callback(k, params, metrics)`: after every step, with the params that step k made and the metrics of `make_step`
      (JAX arrays, perhaps still being computed: converting them waits). Returning True stops the training.

    Returns `Fit(params, opt_state, history)`. In `history`, with n the number of steps done:
    * `loss`, `grad_norm` (n,): at the params each step started from, norm before clipping; `time` (n,): seconds since
      the start at which each step was done (within a block of steps fetched together, interpolated);
    * `aux/NAME` (n,): every scalar in aux; other parts of aux reach the callback only;
    * `eval_step` (m,): how many steps were done at each evaluation; `eval_NAME` (m,) for a dict, `eval_value` (m,) for
      a float; `best_step`, with patience: the entry of `eval_step` whose params are returned;
    * `stopped`: "epochs", "n_steps", "patience", "callback", or "non-finite".

    Losses are fetched up to fifty at a time, so that small steps stay fast. Where the loss or the update is not finite
    the compiled step itself keeps params, so nothing is lost by looking later: `NonFiniteError` names the exact step,
    and its attribute `fit` is the `Fit` up to it, with the params before that step. An optimizer inside
    `optax.apply_if_finite` skips bad gradients itself; `fit` then stops only at an update that is still not finite.

    Ctrl-C passes through, once the bar is closed; keep params in the callback if a run must survive it.

    >>> import jax, jax.numpy as jnp, optax
    >>> import rnnscan as rs
    >>> def loss(params, batch, key):  # the sum of a sequence, by the smallest of networks
    ...     xs, sums = batch
    ...     s, _ = rs.scan(rs.cells.Linear(1, 1), params, None, xs)
    ...     return jnp.mean((s - sums) ** 2)
    >>> xs = jax.random.uniform(jax.random.key(1), (4, 50, 1))
    >>> start = {"w_x": jnp.full((1, 1), 0.5), "w_h": jnp.full((1, 1), 0.5)}
    >>> batches = [(xs, xs.sum(0))]
    >>> result = rs.train.fit(loss, start, optax.adam(0.02), batches, key=jax.random.key(0), epochs=300, progress=False)
    >>> print(result.history["stopped"], len(result.history["loss"]), f"{result.params['w_h'].item():.2f}")
    epochs 300 1.00
    """
    check_key(key)
    _check_evaluation(evaluate, evaluate_every, patience, min_delta)
    init, update = compiled(loss, optimizer, clip_norm)
    check_params(params)
    params = jax.tree.map(strong, params)
    opt_state = init(params) if opt_state is None else like(opt_state, jax.eval_shape(init, params))
    source = Source(batches, key, epochs, n_steps)
    judge = Judge(evaluate, patience, min_delta)
    with Bar(source.total(), progress) as bar:
        run = _Run(update, params, opt_state, judge, bar)
        run.history["stopped"] = run.through(source, key, evaluate_every, callback)
    return run.result()


@dataclass
class _Run:
    """The state of one training: params, what was measured, and what is still being computed."""

    update: Callable
    params: Any
    opt_state: Any
    judge: Judge
    bar: Bar
    alive: Any = field(default_factory=lambda: jnp.ones((), bool))
    n_steps: int = 0
    pending: list[Any] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=lambda: {"loss": [], "grad_norm": [], "time": []})
    started: float = field(default_factory=time.perf_counter)
    block_start: float = 0.0
    block_size: int = 1

    def through(self, source: Source, key: Any, evaluate_every: int | None, callback: Any) -> str:
        """All steps and evaluations; the reason why they ended."""
        stopped = None
        for batch in source:
            if batch is not EpochEnd:
                stopped = "callback" if self.step(batch, key, callback) else None
            due = self.n_steps % evaluate_every == 0 if evaluate_every else batch is EpochEnd
            if due and self.judge.evaluate is not None:
                self.settle()
                if self.look():
                    stopped = "patience"
            elif len(self.pending) >= self.block_size:
                self.settle()
            if stopped:
                break
        self.settle()
        self.look()
        return stopped or ("n_steps" if self.n_steps == source.n_steps else "epochs")

    def step(self, batch: Any, key: Any, callback: Any) -> bool:
        """One training step, not waited for."""
        k = self.n_steps
        self.params, self.opt_state, self.alive, metrics = self.update(
            self.params, self.opt_state, batch, key, k, self.alive
        )
        self.n_steps += 1
        self.pending.append(
            {name: metrics[name] for name in ("loss", "grad_norm", "finite")} | _scalars(metrics["aux"])
        )
        return callback is not None and bool(callback(k, self.params, metrics))

    def settle(self) -> None:
        """Waits for the steps under way and writes them down; raises if one of them failed."""
        block, self.pending = jax.device_get(self.pending), []
        if not block:
            return
        first, begun, now = self.n_steps - len(block), self.block_start, self.seconds()
        for i, row in enumerate(block):
            finite = row.pop("finite")
            row["time"] = begun + (now - begun) * (i + 1) / len(block)
            for name, value in row.items():
                self.history.setdefault(name, []).append(value)
            if not finite:
                self.n_steps = first + i + 1
                self.fail(first + i)
        # Blocks grow to fifty steps or a tenth of a second: slow steps are seen one by one, quick ones cost little.
        in_time = int(0.1 * len(block) / max(now - begun, 1e-9))
        self.block_start, self.block_size = now, max(1, min(50, 2 * self.block_size, in_time))
        self.bar.advance(len(block), float(block[-1]["loss"]))

    def look(self) -> bool:
        """An evaluation at this point, unless there was one already."""
        try:
            stop = self.judge.look(self.n_steps, self.params, self.opt_state)
        except NonFiniteError as error:
            self.history["stopped"] = "non-finite"
            error.fit = self.result()  # type: ignore[attr-defined]
            raise
        self.block_start = self.seconds()
        return stop

    def fail(self, k: int) -> None:
        """Raises for step k, the first whose loss or update is not finite; params are still those before it."""
        losses = self.history["loss"]
        before = f" (last finite {losses[k - 1]:.4g} at step {k - 1})" if k and np.isfinite(losses[k - 1]) else ""
        if np.isfinite(losses[k]):
            norm = self.history["grad_norm"][k]
            what = f"the update is not finite at step {k} (loss {losses[k]:.4g}, gradient norm {norm:.4g})"
        else:
            what = f"loss became {losses[k]:.4g} at step {k}{before}"
        self.history["stopped"] = "non-finite"
        error = NonFiniteError(
            f"{what}. The params before that step are kept in this exception's `.fit.params`. Try `clip_norm=1.0`, a "
            "smaller learning rate, or `optax.apply_if_finite(optimizer, max_consecutive_errors=5)`."
        )
        error.fit = Fit(self.params, self.opt_state, self.arrays())  # type: ignore[attr-defined]
        raise error

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def arrays(self) -> dict[str, Any]:
        history: dict[str, Any] = {name: v if name == "stopped" else np.asarray(v) for name, v in self.history.items()}
        if self.judge.evaluate is not None:
            history |= {name: np.asarray(v) for name, v in self.judge.history.items()}
            history["eval_step"] = history["eval_step"].astype(int)
        return history

    def result(self) -> Fit:
        history = self.arrays()
        if self.judge.patience is None or self.judge.best[2] is None:
            return Fit(self.params, self.opt_state, history)
        _, history["best_step"], params, opt_state = self.judge.best
        return Fit(params, opt_state, history)


def _scalars(aux):
    """Every scalar of aux under its path: `aux/accuracy`."""
    leaves = jax.tree_util.tree_flatten_with_path(aux)[0]
    name = lambda path: "/".join(["aux", *(jax.tree_util.keystr((entry,), simple=True) for entry in path)])
    return {name(path): leaf for path, leaf in leaves if jnp.ndim(leaf) == 0}


def _check_evaluation(evaluate, evaluate_every, patience, min_delta):
    for name, value in [("evaluate_every", evaluate_every), ("patience", patience)]:
        if value is not None:
            check_count(value, name, least=1)
            if evaluate is None:
                raise ValueError(f"`{name}` is about evaluations; give `evaluate=` a function of params as well.")
    if min_delta < 0 or (min_delta and patience is None):
        raise ValueError(f"`min_delta` must be >= 0 and goes with `patience`; got {min_delta}, patience={patience}.")
