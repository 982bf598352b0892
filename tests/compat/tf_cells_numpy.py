"""TensorFlow 1's cells in NumPy, each gate by itself, written from the rules that TensorFlow documents."""

import numpy as np


def s(a):
    return 1 / (1 + np.exp(-a))


def block(params, x, h, k, n):
    """Block k of n columns of `[x; h] kernel + bias`, as two products."""
    kernel, columns = params["kernel"], slice(k * n, (k + 1) * n)
    bias = params["bias"][columns] if "bias" in params else 0
    return x @ kernel[: x.shape[-1], columns] + h @ kernel[x.shape[-1] :, columns] + bias


def basic_rnn(params, x, h, f=np.tanh):
    h = f(block(params, x, h, 0, h.shape[-1]))
    return h, h


def basic_lstm(params, x, state, forget_bias=1.0, f=np.tanh):
    c, h = state
    i, j, forget, o = (block(params, x, h, k, c.shape[-1]) for k in range(4))
    c = c * s(forget + forget_bias) + s(i) * f(j)
    h = f(c) * s(o)
    return h, (c, h)


def lstm(params, x, state, peepholes=False, cell_clip=np.inf, proj_clip=np.inf, forget_bias=1.0, f=np.tanh):
    c, m = state
    i, j, forget, o = (block(params, x, m, k, c.shape[-1]) for k in range(4))
    w_i, w_f, w_o = (params[f"w_{gate}_diag"] if peepholes else 0.0 for gate in "ifo")
    c = s(forget + forget_bias + w_f * c) * c + s(i + w_i * c) * f(j)
    c = np.minimum(np.maximum(c, -cell_clip), cell_clip)
    m = s(o + w_o * c) * f(c)
    if "projection" in params:
        m = np.minimum(np.maximum(m @ params["projection"]["kernel"], -proj_clip), proj_clip)
    return m, (c, m)


def gru(params, x, h, f=np.tanh):
    n = h.shape[-1]
    r, u = (s(block(params["gates"], x, h, k, n)) for k in range(2))
    c = f(block(params["candidate"], x, r * h, 0, n))
    h = u * h + (1 - u) * c
    return h, h


def norm(params, a):
    mean = a.mean(-1, keepdims=True)
    deviation = np.sqrt(((a - mean) ** 2).mean(-1, keepdims=True) + 1e-12)
    return (a - mean) / deviation * params["gamma"] + params["beta"]


def layer_norm_lstm(params, x, state, forget_bias=1.0, f=np.tanh):
    c, h = state
    names = ("input", "transform", "forget", "output")
    i, j, forget, o = (norm(params[name], block(params, x, h, k, c.shape[-1])) for k, name in enumerate(names))
    c = norm(params["state"], c * s(forget + forget_bias) + s(i) * f(j))
    h = f(c) * s(o)
    return h, (c, h)


def highway(params, x, out, coupled=True):
    carry = s(x @ params["carry_w"] + params["carry_b"])
    transform = 1 - carry if coupled else s(x @ params["transform_w"] + params["transform_b"])
    return x * carry + out * transform


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def attention(params, x, state, inner, length, name):
    """One row at a time, one remembered output at a time."""
    outs, states = [], []
    of_row = lambda tree, b: tuple(of_row(part, b) for part in tree) if isinstance(tree, tuple) else tree[b : b + 1]
    for row in range(x.shape[0]):
        cell_state, attended, window = of_row(state, row)
        y, cell_state = inner(params[name], dense(params, np.concatenate([of_row(x, row), attended], 1)), cell_state)
        query = np.concatenate(cell_state, 1) if isinstance(cell_state, tuple) else cell_state
        remembered, score = np.split(window[0], length), params["attention"]
        hidden = [np.tanh(old @ score["attn_w"][0, 0] + dense(score, query)[0]) for old in remembered]
        energies = np.array([(score["attn_v"] * a).sum() for a in hidden])
        weights = np.exp(energies) / np.exp(energies).sum()
        attended = sum(w * old for w, old in zip(weights, remembered, strict=True))[None]
        out = dense(params["attn_output_projection"], np.concatenate([y, attended], 1))
        outs.append(out)
        states.append((cell_state, attended, np.concatenate([*remembered[1:], out[0]])[None]))
    join = lambda *parts: tuple(map(join, *parts)) if isinstance(parts[0], tuple) else np.concatenate(parts)
    return join(*outs), join(*states)
