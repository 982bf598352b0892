"""Which outputs of the loop are kept: the last one of each row, or none."""

from typing import Any

from .. import _tree
from .._loop import Loop


def last_output(loop: Loop, held: Any = None, some: Any = None) -> Loop:
    """Keeps the output of the step just done in the state, so that nothing of length T is stored.

    A masked loop holds its output or repeats it, hence the last step's output is each row's last valid one; where it
    repeats, `some` says which rows have one. No step at all gives `held`, None being zeros.
    """
    first = _tree.zeros_like(loop.output) if held is None else held

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        return loop.step(params, state[0], inputs, t), None

    def finish(state: Any, outputs: Any) -> tuple[Any, Any]:
        return loop.finish(state[0], None)[0], state[1] if some is None else _tree.where(some, state[1], first)

    return loop.wrap(
        step=step,
        state=(loop.state, first),
        output=None,
        carry_of=lambda state: loop.carry_of(state[0]),
        finish=finish,
    )


def no_output(loop: Loop) -> Loop:
    """Drops every output."""

    def step(params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        return loop.step(params, state, inputs, t)[0], None

    return loop.wrap(step=step, output=None)
