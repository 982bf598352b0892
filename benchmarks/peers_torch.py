"""torch's layers with the weights of a problem, run eagerly: oneDNN on the CPU, cuDNN on a GPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .contenders import Absent, Contender, Problem, Weights


THREADS = 2


def torch_layer(problem: Problem) -> Contender:
    """`torch.nn.RNN`, `LSTM`, `GRU`, time first; their second bias is zero, but for the GRU's `b_hn`."""
    import torch

    gpu = jax.default_backend() == "gpu"
    if gpu and not torch.cuda.is_available():
        raise Absent("this torch was built without CUDA")
    torch.set_num_threads(THREADS)
    T, B, n_in, n = problem.shape
    kind = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[problem.cell]
    place = {"device": "cuda" if gpu else "cpu", "dtype": getattr(torch, problem.dtype)}

    def into(w: Weights) -> dict[str, jax.Array]:
        second = jnp.zeros_like(w["b"])
        if "b_hn" in w:
            second = jnp.concatenate([second[: 2 * n], w["b_hn"]])
        return {"weight_ih_l0": w["w_x"].T, "weight_hh_l0": w["w_h"].T, "bias_ih_l0": w["b"], "bias_hh_l0": second}

    def eager(job: str) -> Callable[[], Any]:
        layer = kind(n_in, n).to(**place)
        tensor = lambda array: torch.tensor(np.asarray(array, np.float32), **place)
        with torch.no_grad():
            for name, value in into(problem.weights).items():
                getattr(layer, name).copy_(tensor(value))
        layer.flatten_parameters()
        xs = tensor(problem.xs).requires_grad_(job == "train_dx")
        return _run(torch, layer, xs, job, torch.cuda.synchronize if gpu else lambda: None)

    note = f"torch.nn.{kind.__name__}, {'cuDNN' if gpu else f'CPU, {THREADS} threads'}; double bias"
    return Contender(into, eager=eager, note=note)


def _run(torch: Any, layer: Any, xs: Any, job: str, ready: Callable[[], None]) -> Callable[[], Any]:
    """What `contenders.function` computes; it returns when the device has finished."""
    params = dict(layer.named_parameters())
    wanted = [*params.values(), *([xs] if job == "train_dx" else [])]

    def forward() -> Any:
        with torch.no_grad():
            ys = layer(xs)[0]
        ready()
        return ys

    def train() -> Any:
        loss = (layer(xs)[0] ** 2).mean()
        grads = torch.autograd.grad(loss, wanted)
        ready()
        named = dict(zip(params, grads, strict=False))
        return loss.detach(), (named, grads[-1]) if job == "train_dx" else named

    return forward if job == "forward" else train


def as_arrays(out: Any) -> Any:
    """Tensors as NumPy arrays, through float32, since NumPy has no bfloat16."""
    return jax.tree.map(lambda leaf: leaf.detach().float().cpu().numpy(), out)
