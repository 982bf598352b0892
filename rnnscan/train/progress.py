"""The bar that `fit` shows: steps done, steps a second, the latest loss."""

import sys
from types import TracebackType

from tqdm import tqdm


class Bar:
    """A tqdm bar on stderr as a context manager; with `show=False` it does nothing.

    On a terminal it redraws ten times a second at most. Where stderr is a file or a pipe it writes a line every ten
    seconds at most, so that logs stay short. It is closed, and the cursor with it, however the loop ends.
    """

    def __init__(self, total: int | None, show: bool = True):
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            disable=not show,
            unit="step",
            dynamic_ncols=terminal,
            mininterval=0.1 if terminal else 10.0,
            file=sys.stderr,
        )

    def __enter__(self) -> "Bar":
        if not self._bar.disable:
            self._bar.set_postfix_str("compiling")  # the first step brings the loss in its place
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def advance(self, n_steps: int, loss: float) -> None:
        """`n_steps` more steps are done and the last of them had this loss."""
        self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self._bar.update(n_steps)
