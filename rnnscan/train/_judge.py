"""Evaluations during training, the best params among them, and when to stop for want of progress."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._errors import NonFiniteError


@dataclass
class Judge:
    """Evaluates, keeps what came out, remembers the best params, and says when patience is at its end."""

    evaluate: Callable[[Any], Any] | None
    patience: int | None
    min_delta: float
    history: dict[str, list[float]] = field(default_factory=lambda: {"eval_step": []})
    best: tuple[float, int, Any, Any] = (math.inf, 0, None, None)  # value, step, params, opt_state
    waited: int = 0

    def look(self, step: int, params: Any, opt_state: Any) -> bool:
        """One evaluation after `step` steps; True if training should stop."""
        if self.evaluate is None or step in self.history["eval_step"][-1:]:
            return False
        values = _metrics(self.evaluate(params))
        names = ["eval_step", *(f"eval_{name}" for name in values)]
        if len(self.history["eval_step"]) and set(names) != set(self.history):
            raise ValueError(f"`evaluate` returned {sorted(values)}, but other names before: {sorted(self.history)}.")
        for name, value in zip(names, [step, *values.values()], strict=True):
            self.history.setdefault(name, []).append(value)
        if self.patience is None:
            return False
        name = "loss" if "loss" in values else next(iter(values))
        if math.isnan(values[name]):
            raise NonFiniteError(f"`evaluate` returned nan for '{name}' after {step} steps; patience cannot judge it.")
        if values[name] < self.best[0] - self.min_delta or self.best[2] is None:
            self.best, self.waited = (values[name], step, params, opt_state), 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def _metrics(result):
    """What `evaluate` returned as a dict of floats."""
    values = result if isinstance(result, dict) else {"value": result}
    scalar = lambda value: isinstance(value, int | float) or getattr(value, "shape", None) == ()
    if not values or not all(map(scalar, values.values())) or "step" in values:
        raise TypeError(
            f"`evaluate` must return a float or a dict of floats (none of them called 'step'), got {result!r}."
        )
    return {name: float(value) for name, value in values.items()}
