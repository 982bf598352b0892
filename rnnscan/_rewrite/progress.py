"""A progress bar for the loop, moved from inside the compiled program."""

from typing import Any

import jax
import jax.numpy as jnp

from .._loop import Loop


_STEPS_A_MOVE = 100
_MOST_MOVES = 100


def progress(loop: Loop) -> Loop:
    """The same loop, showing a tqdm bar on stderr; it moves every 100 steps, and at most 100 times in all.

    Each move is a call back to Python from the compiled program, so the number of moves is what the bar costs.
    """
    n = loop.n_steps
    every = max(_STEPS_A_MOVE, -(-n // _MOST_MOVES))
    bar = _Bar(n)

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        inputs, move = inputs
        done = n - t if loop.reverse else t + 1
        jax.lax.cond(move, lambda: jax.debug.callback(bar.move_to, done), lambda: None)
        return loop.step(params, state, inputs, t if loop.uses_t else None)

    done = jnp.arange(1, n + 1, dtype=jnp.int32)
    moves = (done % every == 0) | (done == n) | (done == 1)
    return loop.wrap(step=step, inputs=(loop.inputs, moves[::-1] if loop.reverse else moves), uses_t=True)


class _Bar:
    """A tqdm bar that starts anew each time the loop does; a mapped loop moves it once for each of its copies."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps
        self.bar: Any = None

    def move_to(self, done: Any) -> None:
        import tqdm

        done = int(done)
        if self.bar is not None and done < self.bar.n:
            self.bar.close()
            self.bar = None
        if self.bar is None:
            self.bar = tqdm.tqdm(total=self.n_steps, desc="scan", unit="step", leave=True)
        self.bar.update(done - self.bar.n)
        if done == self.n_steps:
            self.bar.close()
            self.bar = None
