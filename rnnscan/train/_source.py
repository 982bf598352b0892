"""Where `fit` gets its batches from: lists, functions of an epoch's key, generators; in order, epoch after epoch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._tree import describe
from ._checks import check_count


class EpochEnd:
    """Stands between the batches of two epochs."""


@dataclass
class Source:
    """Batches of all epochs, in order, with an `EpochEnd` after each epoch that came to its end."""

    batches: Any
    key: Any
    epochs: int | None
    n_steps: int | None

    def __post_init__(self):
        if self.epochs is None and self.n_steps is None:
            self.epochs = 1
        for name in ("epochs", "n_steps"):
            if getattr(self, name) is not None:
                setattr(self, name, check_count(getattr(self, name), name))
        batches = self.batches
        if isinstance(batches, tuple | dict | jax.Array | np.ndarray | str):
            raise TypeError(
                f"`batches` is {describe(batches)}, which is one batch rather than many. Write `[batch]` to train on "
                "it whole, or `rs.train.batches(batch, batch_size)` to cut it up."
            )
        if not callable(batches) and not isinstance(batches, Iterable):
            raise TypeError(f"`batches` must be iterable, or a function of an epoch's key; got {describe(batches)}.")
        if self._once() and self.epochs is not None and self.epochs > 1:
            raise ValueError(
                f"`batches` is {describe(batches)}, which can be read once, and epochs={self.epochs} needs it again. "
                "Write `list(batches)`, or a function `epoch_key -> iterable`."
            )

    def _once(self):
        return not callable(self.batches) and isinstance(self.batches, Iterator)

    def total(self) -> int | None:
        """How many steps there will be, where that can be known."""
        known = [] if self.n_steps is None else [self.n_steps]
        if self.epochs is not None and hasattr(self.batches, "__len__"):
            known.append(self.epochs * len(self.batches))
        return min(known, default=None)

    def __iter__(self) -> Iterator[Any]:
        # Steps use fold_in(key, 0), fold_in(key, 1), ...; the last number of all is left for the order of batches.
        order_key = jax.random.fold_in(self.key, 2**32 - 1)
        k, epoch = 0, 0
        while (self.epochs is None or epoch < self.epochs) and (self.n_steps is None or k < self.n_steps):
            given = callable(self.batches)
            start = k
            for batch in self.batches(jax.random.fold_in(order_key, epoch)) if given else self.batches:
                yield batch
                k += 1
                if k == self.n_steps:
                    return
            if k == start:
                so_far = f"ended after {k} steps, n_steps={self.n_steps}" if k and self._once() else "is empty"
                raise ValueError(f"`batches` gave nothing in epoch {epoch}: it {so_far}.")
            yield EpochEnd
            epoch += 1
