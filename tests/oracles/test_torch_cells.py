"""Elman, LSTM and GRU against torch on the CPU with copied weights: outputs, last states and all gradients, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rnnscan.cells import GRU, LSTM, Elman


STEPS, ROWS, IN, HIDDEN = 5, 2, 3, 4

PAIRS = {
    "tanh": (Elman(IN, HIDDEN, double_bias=True), lambda: torch.nn.RNN(IN, HIDDEN, nonlinearity="tanh")),
    "relu": (Elman(IN, HIDDEN, "relu", double_bias=True), lambda: torch.nn.RNN(IN, HIDDEN, nonlinearity="relu")),
    "LSTM": (LSTM(IN, HIDDEN), lambda: torch.nn.LSTM(IN, HIDDEN)),
    "GRU": (GRU(IN, HIDDEN), lambda: torch.nn.GRU(IN, HIDDEN)),
}


def params_of(arrays, cell):
    """rnnscan's params from torch's four arrays; torch keeps (out, in), and two biases where an LSTM here has one."""
    w_x, w_h, b_ih, b_hh = (arrays[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    biases = {"b": b_ih + b_hh} if isinstance(cell, LSTM) else {"b": b_ih, "b_h": b_hh}
    return {"w_x": w_x.T, "w_h": w_h.T} | biases


def loss(lib, ys, state):
    """Uneven weights, so that a gradient at the wrong step, row or unit shows."""
    return (lib.cos(ys) * weights(lib, ys)).sum() + sum((lib.sin(s) * weights(lib, s)).sum() for s in state)


def weights(lib, array):
    ramp = np.linspace(0.3, 1.7, int(np.prod(array.shape))).reshape(array.shape)
    return torch.from_numpy(ramp) if lib is torch else jnp.asarray(ramp)


@pytest.mark.parametrize(("cell", "make"), PAIRS.values(), ids=PAIRS)
def test_values_and_gradients_equal_torch(cell, make):
    random = np.random.default_rng(0)
    module = make().double()
    for weight in module.parameters():  # torch starts biases at random, but small: make every number matter
        weight.data = torch.from_numpy(random.normal(size=tuple(weight.shape)))
    xs = random.normal(size=(STEPS, ROWS, IN))
    n_states = 2 if isinstance(cell, LSTM) else 1
    states = [random.normal(size=(ROWS, HIDDEN)) for _ in range(n_states)]

    inputs = torch.from_numpy(xs).requires_grad_()
    first = [torch.from_numpy(state)[None].requires_grad_() for state in states]
    torch_ys, torch_last = module(inputs, tuple(first) if n_states == 2 else first[0])
    torch_last = [state[0] for state in (torch_last if n_states == 2 else (torch_last,))]
    torch_loss = loss(torch, torch_ys, torch_last)
    torch_loss.backward()

    arrays = {name: weight.detach().numpy() for name, weight in module.named_parameters()}

    def ours(arrays, carry, xs):
        params = params_of(arrays, cell)
        carry, ys = jax.lax.scan(lambda c, x: cell(params, c, x), tuple(carry) if n_states == 2 else carry[0], xs)
        last = carry if n_states == 2 else (carry,)
        return loss(jnp, ys, last), (ys, last)

    arguments = jax.tree.map(jnp.asarray, (arrays, states, xs))
    (value, (ys, last)), grads = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))(*arguments)

    close = lambda got, want: np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-10, atol=1e-12)
    close(value, torch_loss)
    close(ys, torch_ys)
    for got, want in zip(last, torch_last, strict=True):
        close(got, want)
    # gradients with respect to torch's own arrays, through the mapping
    assert set(grads[0]) == {name for name, _ in module.named_parameters()} and len(grads[0]) == 4
    for name, weight in module.named_parameters():
        close(grads[0][name], weight.grad)
    for got, want in zip(grads[1], first, strict=True):
        close(got, want.grad[0])
    close(grads[2], inputs.grad)


def test_torch_projects_relu_to_zero_gradient_at_zero_as_we_do():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    torch.relu(x).sum().backward()
    cell, zero, one = Elman(1, 1, "relu"), jnp.zeros((1, 1)), jnp.ones((1, 1))
    params = {"w_x": one, "w_h": zero, "b": jnp.zeros(1)}
    grad = jax.grad(lambda x: cell(params, jnp.zeros(1), x)[1].sum())(jnp.zeros(1))
    assert float(grad[0]) == float(x.grad[0]) == 0.0
