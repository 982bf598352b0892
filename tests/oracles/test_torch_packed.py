"""torch's packed sequences, one and both directions, one and two layers, against padded and packed scans: float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnscan as rs
from rnnscan import last_valid, pack, unpack
from tests.helpers import compile_quickly
from tests.oracles.programs import differential
from tests.oracles.test_torch_cells import HIDDEN, IN, loss, params_of


T, B = 5, 3
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KINDS = {
    "tanh": (functools.partial(rs.cells.Elman, double_bias=True), torch.nn.RNN),
    "relu": (
        functools.partial(rs.cells.Elman, activation="relu", double_bias=True),
        functools.partial(torch.nn.RNN, nonlinearity="relu"),
    ),
    "LSTM": (rs.cells.LSTM, torch.nn.LSTM),
    "GRU": (rs.cells.GRU, torch.nn.GRU),
}
PROGRAMS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(KINDS)),
        "layers": st.integers(1, 2),
        "both_ways": st.booleans(),
        "bias": st.booleans(),
        "batch_first": st.booleans(),
        "enforce_sorted": st.booleans(),
        "first_state": st.booleans(),
        "packed": st.booleans(),  # whether rnnscan takes the padding out as well
        "lengths": st.lists(st.integers(1, T), min_size=B, max_size=B),
        "seed": st.integers(0, 10**6),
    }
)


@differential(PROGRAMS, full=300)
def test_packed_sequences_equal_torch(program):
    """Outputs, last states, and gradients of weights, first states and inputs; the padding is NaN on both sides."""
    random = np.random.default_rng(program["seed"])
    lengths = sorted(program["lengths"], reverse=True) if program["enforce_sorted"] else program["lengths"]
    xs = np.where((np.arange(T)[:, None] < lengths)[..., None], random.normal(size=(T, B, IN)), np.nan)
    xs = np.swapaxes(xs, 0, 1) if program["batch_first"] else xs
    options = {"num_layers": program["layers"], "bidirectional": program["both_ways"]}
    options |= {"bias": program["bias"], "batch_first": program["batch_first"]}
    module = KINDS[program["kind"]][1](IN, HIDDEN, dtype=torch.float64, **options)
    for weight in module.parameters():
        weight.data = torch.from_numpy(random.normal(size=tuple(weight.shape)))
    n_states, parts = 1 + (program["kind"] == "LSTM"), program["layers"] * (1 + program["both_ways"])
    states = [random.normal(size=(parts, B, HIDDEN)) * program["first_state"] for _ in range(n_states)]
    if program["packed"]:  # resets know one carry for all rows
        states = [np.broadcast_to(state[:, :1], state.shape).copy() for state in states]

    inputs, first = torch.from_numpy(xs).requires_grad_(), [torch.from_numpy(s).requires_grad_() for s in states]
    rows = pack_padded_sequence(inputs, lengths, program["batch_first"], program["enforce_sorted"])
    given = () if not program["first_state"] else ((first[0] if n_states == 1 else tuple(first)),)
    packed_ys, last = module(rows, *given)
    torch_ys, torch_lengths = pad_packed_sequence(packed_ys, program["batch_first"], total_length=T)
    torch_last = list(last) if n_states == 2 else [last]
    torch_loss = loss(torch, torch_ys, torch_last)
    torch_loss.backward()
    assert torch_lengths.tolist() == list(lengths)

    arrays = {name: weight.detach().numpy() for name, weight in module.named_parameters()}
    names = ("kind", "layers", "both_ways", "bias", "batch_first", "packed")
    run = compiled(*(program[name] for name in names))
    (value, (ys, states)), grads = run(arrays, states, xs, np.array(lengths))

    close = lambda got, want: np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-9, atol=1e-11)
    close(value, torch_loss)
    close(ys, torch_ys)
    for got, want in zip(states, torch_last, strict=True):
        close(got, want)
    for name, weight in module.named_parameters():
        close(grads[0][name], weight.grad)
    for got, want in zip(grads[1], first if program["first_state"] else [], strict=False):
        # a carry shared by all rows sits in row 0 here; torch has a copy for each row
        close(got.sum(1), want.grad.sum(1)) if program["packed"] else close(got, want.grad)
    close(grads[2], inputs.grad)


@functools.cache
def compiled(*config):
    """Values and gradients of ours, as one program for all lengths."""

    def run(arrays, states, xs, lengths):
        def value(arrays, states, xs):
            ys, last = ours(*config, arrays, states, xs, lengths)
            return loss(jnp, ys, last), (ys, last)

        return jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True)(arrays, states, xs)

    return compile_quickly(run)


def ours(kind, layers, both_ways, bias, batch_first, packed, arrays, states, xs, lengths):
    """Outputs and last states; torch stacks states as layer 0 forward, layer 0 backward, layer 1 forward, ..."""
    axis, suffixes = int(batch_first), ("", "_reverse") if both_ways else ("",)
    sizes = [IN] + [HIDDEN * len(suffixes)] * (layers - 1)
    cells = [KINDS[kind][0](size, HIDDEN) for size in sizes]
    params = [[part_params(arrays, cell, i, s, bias) for s in suffixes] for i, cell in enumerate(cells)]
    carries = [tuple(s[i] for s in states) if len(states) == 2 else states[0][i] for i in range(layers * len(suffixes))]
    rows, options = None, {"lengths": lengths, "time_axis": axis}
    if packed:
        rows = pack(xs, lengths, time_axis=axis, total=T * B)
        xs, options = rows.xs, {"lengths": rows.n_valid, "resets": rows.resets}
        carries = jax.tree.map(lambda leaf: leaf[0], carries)
    if both_ways:
        last, ys = [], xs
        for i, cell in enumerate(cells):
            ends, ys = layer((cell, cell), params[i], carries[2 * i : 2 * i + 2], ys, rows, options)
            last += ends
    else:
        stack, of_stack = rs.wrap.Stack(*cells), tuple(part for (part,) in params)
        (last,), ys = layer((stack,), (of_stack,), (tuple(carries),), xs, rows, options)
    last = [jnp.stack(parts) for parts in (zip(*last, strict=True) if len(states) == 2 else [last])]
    return (unpack(ys, rows.lengths, T, time_axis=axis) if packed else ys), last


def layer(cells, params, carries, xs, rows, options):
    """One direction or two over padded rows, or over packed ones, where the cells put out their carries as well."""
    if rows is not None:
        cells = [stateful(cell) for cell in cells]
    if len(cells) == 1:
        carry, ys = rs.scan(cells[0], params[0], carries[0], xs, **options)
        last, ys = [carry], [ys]
    else:
        last, ys = rs.bidirectional(*cells, params, carries, xs, merge=None, **options)
    if rows is not None:
        ys, states = zip(*ys, strict=True)
        states = unpack(states, rows.lengths, T)
        last = [last_valid(states[0], rows.lengths), *(jax.tree.map(lambda s: s[0], back) for back in states[1:])]
    return list(last), jnp.concatenate(ys, axis=-1)


def stateful(cell):
    def step(params, carry, x):
        carry, y = cell(params, carry, x)
        return carry, (y, carry)

    return step


def part_params(arrays, cell, i, suffix, bias):
    """Params of one layer and direction; a module without biases has zeros for them."""
    zeros = jnp.zeros(arrays["weight_hh_l0"].shape[0])
    names = {name: f"{name}_l{i}{suffix}" for name in WEIGHTS}
    part = {f"{name}_l0": arrays[full] if bias or "weight" in name else zeros for name, full in names.items()}
    return params_of(part, cell)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3, 1], [2, 5, 2], [1, 1, 4]], ids=str)
def test_the_order_of_packed_data(lengths, batch_first):
    """torch packs step by step, longest row first; `pack` row by row, in the order given. Both hold the same steps."""
    xs = np.random.default_rng(0).normal(size=(T, B, IN))
    xs = np.swapaxes(xs, 0, 1) if batch_first else xs
    theirs = pack_padded_sequence(torch.from_numpy(xs), lengths, batch_first, enforce_sorted=False)
    packed = pack(xs, lengths, time_axis=int(batch_first))
    starts = np.cumsum(lengths) - lengths
    order = [starts[b] + t for t in range(T) for b in theirs.sorted_indices.tolist() if t < lengths[b]]
    assert np.array_equal(packed.xs[np.array(order)], theirs.data.numpy())
    padded, _ = pad_packed_sequence(theirs, batch_first)  # as long as the longest row, as `unpack` without n_steps
    assert np.array_equal(unpack(packed.xs, lengths, time_axis=int(batch_first)), padded.numpy())


CELL = rs.cells.GRU(IN, HIDDEN)
XS = np.random.default_rng(1).normal(size=(T, B, IN))


def test_rows_of_length_0_which_torch_refuses_return_their_first_carry():
    with pytest.raises(RuntimeError, match="greater than 0"):
        pack_padded_sequence(torch.from_numpy(XS), [3, 0, 5], enforce_sorted=False)
    first = jnp.linspace(0.1, 0.9, B * HIDDEN).reshape(B, HIDDEN)
    params = CELL.init(jax.random.key(0))
    carry, ys = rs.scan(CELL, params, first, XS, lengths=[3, 0, 5])
    assert np.array_equal(carry[1], first[1]) and not np.any(ys[:, 1])
    assert pack(XS, [3, 0, 5]).xs.shape == (8, IN)


def test_lengths_above_T_which_torch_accepts_are_refused():
    """Bug: `pack_padded_sequence` takes a row longer than its input and returns a sequence that does not fit itself."""
    theirs = pack_padded_sequence(torch.from_numpy(XS), [T + 2, 2, 1])
    assert len(theirs.batch_sizes) == T + 2 or int(theirs.batch_sizes.sum()) != len(theirs.data)
    params = CELL.init(jax.random.key(0))
    for call in (lambda lengths: pack(XS, lengths), lambda lengths: rs.scan(CELL, params, None, XS, lengths=lengths)):
        with pytest.raises(rs.LengthError, match=r"`lengths\[0\]` = 7 exceeds T = 5"):
            call([T + 2, 2, 1])


def test_lengths_that_are_no_integers_which_torch_cuts_are_refused():
    theirs = pack_padded_sequence(torch.from_numpy(XS), torch.tensor([4.7, 2.2, 1.9]))
    assert int(theirs.batch_sizes.sum()) == 4 + 2 + 1
    with pytest.raises(TypeError, match="`lengths` must be integers"):
        pack(XS, [4.7, 2.2, 1.9])


def test_the_last_output_is_not_the_last_state_of_both_directions():
    """`output[-1]` of a bidirectional module holds the backward state after one step; `h_n` the one after all."""
    torch.manual_seed(0)
    module = torch.nn.GRU(IN, HIDDEN, bidirectional=True, dtype=torch.float64)
    with torch.no_grad():
        ys, h_n = module(torch.from_numpy(XS))
    arrays = {name: jnp.asarray(weight.detach().numpy()) for name, weight in module.named_parameters()}
    params = [part_params(arrays, CELL, 0, suffix, True) for suffix in ("", "_reverse")]
    both = functools.partial(rs.bidirectional, CELL, CELL, params, None, XS)
    (forward, backward), got = both()
    last = both(outputs="last")[1]  # each direction's last output in its own scan order
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    close(got, ys.numpy())
    close(np.stack([forward, backward]), h_n.numpy())
    close(last, np.concatenate(h_n.numpy(), axis=-1))
    assert np.abs(ys[-1, :, HIDDEN:].numpy() - h_n[1].numpy()).max(axis=-1).min() > 0.1  # in every row
