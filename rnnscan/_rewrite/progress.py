"""A progress bar for the loop, moved from inside the compiled program."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._loop import Loop


_STEPS_A_MOVE = 250
_MOST_MOVES = 100


def progress(loop: Loop) -> Loop:
    """The same loop, showing a tqdm bar on stderr; it moves every 250 steps, and at most 100 times in all.

    Each move is a call back to Python from the compiled program, so the number of moves is most of what the bar costs.
    The places the bar moves to are built into the program, one branch each: handing the step number over would make
    an array of it at each call, which costs more than the call.
    """
    n = loop.n_steps
    every = max(_STEPS_A_MOVE, -(-n // _MOST_MOVES))
    bar = _Bar(n)
    places = sorted({1, *range(every, n, every), n})  # how many steps are done
    moves: list[Callable[[], None]] = [_stay]
    moves += [partial(jax.debug.callback, partial(bar.move_to, done)) for done in places]
    which = jnp.zeros(n, jnp.int32).at[jnp.array(places) - 1].set(jnp.arange(1, len(places) + 1, dtype=jnp.int32))

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        inputs, move = inputs
        jax.lax.switch(move, moves)
        return loop.step(params, state, inputs, t)

    return loop.wrap(step=step, inputs=(loop.inputs, which[::-1] if loop.reverse else which))


def _stay() -> None:
    pass


class _Bar:
    """A tqdm bar that starts anew each time the loop does."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps
        self.bar: Any = None

    def move_to(self, done: int) -> None:
        import tqdm

        if self.bar is not None and done < self.bar.n:
            self.bar.close()
            self.bar = None
        if self.bar is None:
            self.bar = tqdm.tqdm(total=self.n_steps, desc="scan", unit="step", leave=True)
        self.bar.update(done - self.bar.n)
        if done == self.n_steps:
            self.bar.close()
            self.bar = None
