"""A progress bar for the loop, moved from inside the compiled program."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import tqdm

from .. import _tree
from .._jaxpr.cost import flops
from .._loop import Loop


_MOST_MOVES = 100
_SECONDS_A_MOVE = 0.25
_SECONDS_UNSEEN = 0.1
_SECONDS_A_STEP, _FLOPS_A_SECOND = 2e-6, 5e10  # of a modest CPU; a wrong guess only makes the bar coarser or finer


def progress(loop: Loop) -> Loop:
    """The same loop, showing a tqdm bar on stderr.

    Two things cost: each move, a call back to Python of some 0.2 ms, and asking at each step whether to move, some
    1 us. So the bar moves about four times a second by a guess at what a step takes, at most 100 times in all, and a
    loop that should be over within half a second moves it at its start and end only and asks nothing.
    """
    n, bar = loop.n_steps, _Bar(loop.n_steps)
    moves = min(int(_guess_seconds(loop) / _SECONDS_A_MOVE), _MOST_MOVES, n)
    jax.debug.callback(bar.start)
    if moves > 1:
        loop = _move_inside(loop, bar, [n * i // moves for i in range(1, moves)])

    def finish(state: Any, outputs: Any) -> tuple[Any, Any]:
        # reads a number of the final state, so that it cannot be called before the loop has ended
        numbers = [leaf for leaf in jax.tree.leaves(state) if leaf.size and jnp.issubdtype(leaf.dtype, jnp.number)]
        jax.debug.callback(bar.end, *(jax.lax.stop_gradient(leaf.reshape(-1)[0]) for leaf in numbers[:1]))
        return loop.finish(state, outputs)

    return loop.wrap(finish=finish)


def _guess_seconds(loop: Loop) -> float:
    t = jnp.zeros((), jnp.int32) if loop.uses_t else None
    work = flops(loop.step, loop.params, loop.state, _tree.at_time(loop.inputs, 0), t)
    return loop.n_steps * (_SECONDS_A_STEP + work / _FLOPS_A_SECOND)


def _move_inside(loop: Loop, bar: "_Bar", places: list[int]) -> Loop:
    """Moves the bar after each number of steps in `places`.

    The places are built into the program, one branch each: handing the number over would make an array of it at each
    call, which costs more than the call.
    """
    moves: list[Callable[[], None]] = [_stay, *(partial(jax.debug.callback, partial(bar.move_to, n)) for n in places)]
    numbers = jnp.arange(1, len(moves), dtype=jnp.int32)
    which = jnp.zeros(loop.n_steps, jnp.int32).at[jnp.array(places) - 1].set(numbers)

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        inputs, move = inputs
        jax.lax.switch(move, moves)
        return loop.step(params, state, inputs, t)

    return loop.wrap(step=step, inputs=(loop.inputs, which[::-1] if loop.reverse else which))


def _stay() -> None:
    pass


class _Bar:
    """A tqdm bar for every run of one program; nothing is drawn in the first tenth of a second but the end."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps
        self.started = time.time()
        self.ended = False
        self.bar: Any = None

    def start(self) -> None:
        self.close()
        self.started, self.ended = time.time(), False

    def move_to(self, done: int) -> None:
        if self.bar is None and done < self.n_steps and time.time() - self.started < _SECONDS_UNSEEN:
            return
        if self.bar is None:  # with a delay tqdm does not draw the empty bar first
            self.bar = tqdm.tqdm(total=self.n_steps, desc="scan", unit="step", delay=1e-9)
            self.bar.start_t = self.started
        self.bar.update(max(0, done - self.bar.n))

    def end(self, *state: Any) -> None:
        del state
        if not self.ended:  # a mapped loop ends once for each of its copies
            self.move_to(self.n_steps)
            self.close()
        self.ended = True

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
