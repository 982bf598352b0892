"""Batches: sequences padded to one length, sequences grouped by length, and minibatches of arrays; all on the host."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import SequenceError
from .._inputs import check_key
from .._tree import describe, named_leaves
from ._checks import check_count


@dataclass(frozen=True)
class Batches:
    """What `batches` and `bucket` return: `len(data)` batches a pass, in one of three orders.

    * `for batch in data:` the order of the input, the same in every pass;
    * `for batch in data(key):` an order drawn from `key`. `fit` does this, with a new key every epoch;
    * made with `key=`, both give the one order drawn from that key.
    """

    passes: Callable[[np.random.Generator | None], Iterator[Any]]
    n_batches: int
    key: Any = None

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Any]:
        return self.passes(None if self.key is None else _generator(self.key))

    def __call__(self, key: Any) -> Iterator[Any]:
        """One pass, shuffled by `key`, unless a key was given before."""
        check_key(key)
        return self.passes(_generator(key if self.key is None else self.key))


def batches(arrays: Any, batch_size: int, *, key: Any = None, drop_last: bool = False) -> Batches:
    """Minibatches of a pytree of arrays `(n, ...)`, each a pytree of NumPy arrays `(batch_size, ...)`.

    Shuffled anew every epoch by `fit`; see `Batches` for the order elsewhere and what `key` does.
    `drop_last=False`: what remains after the last whole batch is a smaller batch of its own. It compiles the training
    step once more, in the first epoch and never again. With True up to `batch_size - 1` examples, others in each
    shuffled pass, are left out.
    Arrays stay on the host, and each batch goes to the device when the step needs it. The first axis is that of
    examples: a loss over sequences `(batch, time, features)` scans with `time_axis=1`.

    Raises: `SequenceError` for scalars, unequal first axes, no examples, or no whole batch with `drop_last`.
    """
    batch_size = check_count(batch_size, "batch_size", least=1)
    n = _first_axis(arrays, "arrays")
    arrays = jax.tree.map(np.asarray, arrays)
    n_batches = n // batch_size if drop_last else -(-n // batch_size)
    if not n_batches:
        raise SequenceError(f"`batches` has {n} examples, too few for one batch of {batch_size}.")

    def passes(random):
        order = np.arange(n) if random is None else random.permutation(n)
        for i in range(n_batches):
            rows = order[i * batch_size : (i + 1) * batch_size]
            yield jax.tree.map(lambda array, rows=rows: array[rows], arrays)

    return Batches(passes, n_batches, None if key is None else check_key(key))


def pad(sequences: Sequence[Any], *, length: int | None = None, multiple: int = 1, value: Any = 0) -> tuple[Any, Any]:
    """The `sequences` `(T_i, ...)` as one array `(T, B, ...)` filled up with `value`, and their lengths `(B,)`, int32.

    A sequence is an array, or a pytree of arrays with one T_i; then the result is such a pytree. T is the longest
    T_i, rounded up to a multiple of `multiple` (every T compiles anew, so few of them are better), or `length`.
    Nothing is cut: a sequence longer than `length` raises. The results are NumPy arrays in the dtypes that came.

    Raises: `SequenceError` naming the sequence, for an empty list and for scalars, structures, trailing shapes or
    lengths that differ; TypeError for dtypes that differ; ValueError for a `value` the dtype cannot hold.
    """
    lengths = _check_sequences(sequences)
    multiple = check_count(multiple, "multiple", least=1)
    longest = int(lengths.max())
    if length is None:
        length = -(-longest // multiple) * multiple
    elif check_count(length, "length") < longest:
        i = int(np.argmax(lengths > length))
        raise SequenceError(f"`sequences[{i}]` has {lengths[i]} steps, more than length={length}; cut it first.")
    elif length % multiple:
        raise ValueError(f"`length`={length} is not a multiple of multiple={multiple}; give one of them.")

    def fill(*leaves):
        leaves = [np.asarray(leaf) for leaf in leaves]
        padded = np.full((length, len(leaves), *leaves[0].shape[1:]), _fitting(value, leaves[0].dtype))
        for i, leaf in enumerate(leaves):
            padded[: len(leaf), i] = leaf
        return padded

    return jax.tree.map(fill, *sequences), lengths


def bucket(
    sequences: Sequence[Any],
    batch_size: int,
    *,
    boundaries: Sequence[int] | None = None,
    n_buckets: int | None = None,
    extras: Any = None,
    key: Any = None,
    drop_last: bool = False,
    value: Any = 0,
) -> Batches:
    """Batches of sequences of similar length: `(padded (T, B, ...), lengths (B,))`, few values of T, little padding.

    Main arguments: `sequences`, as for `pad`; `batch_size`.
    Other arguments:
    * `boundaries`: increasing lengths. A sequence goes to the first that is not below its length and is padded to
      it. Or `n_buckets`: so many boundaries (4 if neither is given; equal ones count once), at lengths that share the
      sequences out evenly, the last being the longest.
    * `extras`: a pytree of arrays `(n, ...)` with something for each sequence, such as its class; batches are then
      `(padded, lengths, extras of these rows)`.
    * `drop_last=False`: the remainder of each bucket is a smaller batch of its own, so the step compiles at most
      twice a bucket, and nothing is left out. With True remainders are left out.
    * `value`: what padding holds, as in `pad`.
    * `key`: see `Batches`. Shuffling mixes the rows of each bucket and then the order of all batches.

    Raises: `SequenceError` as `pad` does, and for a sequence longer than the last boundary.

    >>> import numpy as np
    >>> sequences = [np.arange(1.0, n + 1) for n in (2, 5, 1, 4)]
    >>> for padded, lengths in bucket(sequences, 2, boundaries=[2, 5]):
    ...     print(padded.tolist(), lengths.tolist())
    [[1.0, 1.0], [2.0, 0.0]] [2, 1]
    [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 0.0]] [5, 4]
    """
    batch_size = check_count(batch_size, "batch_size", least=1)
    lengths = _check_sequences(sequences)
    bounds = _boundaries(lengths, boundaries, n_buckets)
    if extras is not None and _first_axis(extras, "extras") != len(lengths):
        raise SequenceError(f"`extras` has {_first_axis(extras, 'extras')} rows for {len(lengths)} sequences.")
    extras = jax.tree.map(np.asarray, extras)
    number = np.searchsorted(bounds, lengths)
    groups = [np.flatnonzero(number == b) for b in range(len(bounds))]
    sizes = [len(rows) // batch_size if drop_last else -(-len(rows) // batch_size) for rows in groups]
    if not sum(sizes):
        raise SequenceError(f"`bucket` has no whole batch of {batch_size} in any bucket, and drop_last=True.")

    def passes(random):
        plan = []
        for bound, rows, n_batches in zip(bounds, groups, sizes, strict=True):
            rows = rows if random is None else random.permutation(rows)
            plan += [(bound, rows[i * batch_size : (i + 1) * batch_size]) for i in range(n_batches)]
        for i in range(len(plan)) if random is None else random.permutation(len(plan)):
            bound, rows = plan[i]
            batch = pad([sequences[j] for j in rows], length=int(bound), value=value)
            yield batch if extras is None else (*batch, jax.tree.map(lambda array, rows=rows: array[rows], extras))

    return Batches(passes, sum(sizes), None if key is None else check_key(key))


def _generator(key):
    """NumPy's generator seeded by a JAX key; a permutation on the host compiles nothing for each new size."""
    data = key if key.dtype == np.uint32 else jax.random.key_data(key)
    return np.random.default_rng(np.asarray(data))


def _first_axis(tree, name):
    """The one length of all first axes."""
    leaves = named_leaves(name, tree)
    if not leaves:
        raise SequenceError(f"`{name}` holds no array.")
    for leaf_name, leaf in leaves:
        if not np.ndim(leaf) or not hasattr(leaf, "dtype"):
            raise SequenceError(f"`{leaf_name}` must be an array with a first axis to cut, got {describe(leaf)}.")
        if len(leaf) != len(leaves[0][1]):
            raise SequenceError(
                f"`{name}` needs equal first axes; `{leaves[0][0]}` has {len(leaves[0][1])}, `{leaf_name}` {len(leaf)}."
            )
    return len(leaves[0][1])


def _check_sequences(sequences):
    """The lengths of sequences that fit together; or an error naming the first that does not."""
    if not isinstance(sequences, list | tuple):
        raise TypeError(f"`sequences` must be a list of arrays, got {describe(sequences)}.")
    if not sequences:
        raise SequenceError("`sequences` is empty; there is nothing to pad.")
    model = jax.tree.structure(sequences[0])
    lengths = []
    for i, sequence in enumerate(sequences):
        if jax.tree.structure(sequence) != model:
            raise SequenceError(
                f"`sequences[{i}]` has structure {jax.tree.structure(sequence)}, `sequences[0]` has {model}."
            )
        for name, leaf in named_leaves(f"sequences[{i}]", sequence):
            if not np.ndim(leaf) or not hasattr(leaf, "dtype"):
                raise SequenceError(
                    f"`{name}` is {describe(leaf)}; a sequence needs a first axis of time. For lists of numbers write "
                    "`[np.asarray(s) for s in sequences]`."
                )
        lengths.append(_first_axis(sequence, f"sequences[{i}]"))
        for (name, leaf), (name_0, leaf_0) in zip(
            named_leaves(f"sequences[{i}]", sequence), named_leaves("sequences[0]", sequences[0]), strict=True
        ):
            if leaf.shape[1:] != leaf_0.shape[1:]:
                raise SequenceError(
                    f"`{name}` has shape {leaf.shape}, `{name_0}` {leaf_0.shape}; after time they must agree."
                )
            if leaf.dtype != leaf_0.dtype:
                raise TypeError(f"`{name}` is {leaf.dtype}, `{name_0}` is {leaf_0.dtype}; convert one of them.")
    return np.asarray(lengths, np.int32)


def _fitting(value, dtype):
    """`value` in `dtype`, if it can be held there: no -1 in uint8, no 0.5 in int32."""
    with np.errstate(all="ignore"):
        try:
            held = np.asarray(value, dtype)
        except (OverflowError, ValueError, TypeError):
            held = None
    rounds = jnp.issubdtype(dtype, jnp.inexact)
    if held is None or held.shape != () or not (rounds or held == value):
        raise ValueError(f"`value` = {value!r} is no {dtype}, the type of the sequences.")
    return held


def _boundaries(lengths, boundaries, n_buckets):
    if boundaries is not None and n_buckets is not None:
        raise ValueError("give boundaries or n_buckets, not both.")
    if boundaries is None:
        n = check_count(4 if n_buckets is None else n_buckets, "n_buckets", least=1)
        ordered = np.sort(lengths)
        return np.unique(ordered[[-(-len(ordered) * (i + 1) // n) - 1 for i in range(n)]])
    bounds = np.asarray([operator.index(b) for b in boundaries])
    if not len(bounds) or np.any(np.diff(bounds) <= 0) or bounds[0] < 0:
        raise ValueError(f"`boundaries` must be lengths that increase, got {list(boundaries)}.")
    if lengths.max() > bounds[-1]:
        i = int(np.argmax(lengths > bounds[-1]))
        raise SequenceError(
            f"`sequences[{i}]` has {lengths[i]} steps, more than the last boundary {bounds[-1]}; cut it, or add one."
        )
    return bounds
