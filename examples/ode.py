"""Two competing species: a differential equation as a recurrent cell, integrated, fitted and checked.

A Keras tutorial made an RNN layer whose step is Euler's method, and used it twice. First forwards: with known
rates it integrates the competition

    dy1/dt = r1 y1 (1 - y1/N1) - a1 y1 y2        dy2/dt = r2 y2 (1 - y2/N2) - a2 y1 y2

from (100, 150). Then backwards: the six rates become weights, and Adam finds them from the populations at six times,
rounded to whole animals. What it could not do easily is here as well: fitting logarithms with L-BFGS, which reaches the
least-squares optimum that Adam's fixed step of 1e-4 only walks around (the small rates are of that size themselves); a
fourth-order method at the same number of evaluations; and a comparison with diffrax.

Rates of very different sizes want float64; this job switches it on for itself only.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnscan as rs

from ._job import Merit, Settings


RATES = {"r1": 0.1, "r2": 0.3, "a1": 1e-4, "a2": 2e-4, "1/N1": 0.002, "1/N2": 0.003}
FIRST_GUESS = {"r1": 0.1, "r2": 0.1, "a1": 0.001, "a2": 0.001, "1/N1": 0.001, "1/N2": 0.001}
BEGIN = (100.0, 150.0)
TIMES = np.array([10, 15, 30, 36, 40, 42])
POPULATIONS = np.array([(165, 283), (197, 290), (280, 276), (305, 269), (318, 266), (324, 264)], float)
OPTIMUM = 0.697  # the least sum of squares that any six rates reach with Euler steps of 1


def competition(rates: Any, t: Any, y: jax.Array, u: Any) -> jax.Array:
    """dy/dt of the two species `y (2,)`; there is no input u."""
    del t, u
    y1, y2 = y
    return jnp.stack(
        [
            rates["r1"] * y1 * (1 - rates["1/N1"] * y1) - rates["a1"] * y1 * y2,
            rates["r2"] * y2 * (1 - rates["1/N2"] * y2) - rates["a2"] * y1 * y2,
        ]
    )


def run(settings: Settings) -> list[Merit]:
    with jax.enable_x64(True):
        forward, merits = integrate()
        fits, inferred = infer(settings)
        errors, compared = compare_methods()
        draw(settings, forward, fits, errors)
        return [*merits, *inferred, *compared, diffrax_merit()]


def solve(method: Callable[..., Any], dt: float, rates: Any, n_steps: int) -> jax.Array:
    """The populations `(n_steps, 2)` at t = dt, 2 dt, ..."""
    cell = method(competition, dt)
    _, ys = rs.scan(cell, rates, cell.start(jnp.array(BEGIN)), n_steps=n_steps)
    return ys


def integrate() -> tuple[np.ndarray, list[Merit]]:
    print("  1000 Euler steps of 0.1 with the tutorial's rates")
    ys = np.asarray(solve(rs.ode.Euler, 0.1, RATES, 1000))
    merits = []
    for t, published in zip(TIMES, POPULATIONS, strict=True):
        ours = tuple(int(n) for n in np.round(ys[10 * t - 1]))
        expected = tuple(int(n) for n in published)
        merits.append(Merit("ode", f"Euler h=0.1, populations at t={t}", str(ours), str(expected), ours == expected))
    return ys, merits


def sum_of_squares(rates: Any, data: Any, key: Any) -> jax.Array:
    """Misfit of Euler's method with h = 1 at the six times."""
    del key
    times, populations = data
    ys = solve(rs.ode.Euler, 1.0, rates, int(TIMES[-1]))
    return jnp.sum((ys[times - 1] - populations) ** 2)


def misfit_of_logs(logs: Any, data: Any, key: Any) -> jax.Array:
    return sum_of_squares(jax.tree.map(jnp.exp, logs), data, key)


Fitted = tuple[Any, np.ndarray, float]  # rates, the loss at every epoch, the sum of squares at these rates


def infer(settings: Settings) -> tuple[dict[str, Fitted], list[Merit]]:
    """The six rates from the six points, twice: `{name: (rates, losses, best)}` and the merits."""
    data = jnp.asarray(TIMES), jnp.asarray(POPULATIONS)
    guess = jax.tree.map(jnp.asarray, FIRST_GUESS)
    adam, merits = infer_as_published(data, guess, 500 if settings.fast else 10_000)
    logs = infer_in_logs(data, guess)
    least = least_squares()
    ours = logs[2]
    print(f"  scipy.optimize.least_squares, from the true rates: {least:.6f}")
    print("  rates   " + "".join(f"{name:>10}" for name in RATES))
    for name, rates in (("true", RATES), ("Adam", adam[0]), ("L-BFGS", logs[0])):
        print(f"  {name:<8}" + "".join(f"{float(rates[rate]):>10.6f}" for rate in RATES))
    merits += [
        Merit("ode", "sum of squares, L-BFGS on logarithms", f"{ours:.4f}", f"< 1.0, best {OPTIMUM}", bool(ours < 1)),
        Merit("ode", "least-squares optimum by SciPy", f"{least:.4f}", f"{OPTIMUM}", round(least, 3) == OPTIMUM),
    ]
    return {"Adam 1e-4": adam, "L-BFGS on logarithms": logs}, merits


def infer_as_published(data: Any, guess: Any, epochs: int) -> tuple[Fitted, list[Merit]]:
    """Adam with rate 1e-4 on the rates themselves, the best of every tenth epoch kept.

    A step of 1e-4 is a tenth of four of the rates, so the last epochs jump about; which of them is lucky depends on the
    last bits of the arithmetic.
    """
    print(f"  inference with h = 1 from six rounded points: Adam 1e-4, {epochs:,} epochs")
    score = jax.jit(lambda rates: sum_of_squares(rates, data, None))
    started = time.perf_counter()
    fit = rs.train.fit(sum_of_squares, guess, optax.adam(1e-4), [data], key=jax.random.key(0), epochs=epochs,
                       evaluate=score, evaluate_every=10, patience=epochs)  # fmt: skip
    seconds, losses, found = time.perf_counter() - started, fit.history["loss"], float(score(fit.params))
    best, usual = fit.history["best_step"], np.median(losses[-epochs // 10 :])
    print(f"  best {found:.2f}, after {best:,} epochs; median of the last tenth {usual:.2f}; {seconds:.1f} s")
    if epochs < 10_000:
        print("  with --fast too few epochs for the published figure, so no verdict on it")
        return (fit.params, losses, found), []
    return (fit.params, losses, found), [
        Merit("ode", "sum of squares, best of 10,000 epochs of Adam", f"{found:.2f}", "< 100", found < 100),
        Merit("ode", "seconds for the 10,000 epochs", f"{seconds:.1f}", "seconds (< 60)", seconds < 60),
    ]


def infer_in_logs(data: Any, guess: Any) -> Fitted:
    """L-BFGS on the logarithms: rates stay positive, and a step changes each of them by its own scale."""
    print("  the same with L-BFGS on the logarithms of the rates, until the gradient is gone")
    done = lambda k, params, metrics: metrics["grad_norm"] < 1e-6
    fit = rs.train.fit(misfit_of_logs, jax.tree.map(jnp.log, guess), optax.lbfgs(), [data], key=jax.random.key(0),
                       epochs=300, callback=done)  # fmt: skip
    losses = fit.history["loss"]
    print(f"  below 100 after {np.argmax(losses < 100)} iterations, {losses[-1]:.6f} after {len(losses)}")
    return jax.tree.map(jnp.exp, fit.params), losses, losses.min()


def least_squares() -> float:
    """The least sum of squares with Euler steps of 1, by SciPy's trust-region method from the true rates."""
    from scipy.optimize import least_squares

    names = list(RATES)
    rates = lambda logs: dict(zip(names, jnp.exp(logs), strict=True))
    residuals = jax.jit(lambda q: (solve(rs.ode.Euler, 1.0, rates(q), 42)[TIMES - 1] - POPULATIONS).ravel())
    start = np.log(list(RATES.values()))
    found = least_squares(residuals, start, jac=jax.jit(jax.jacfwd(residuals)), ftol=1e-14, xtol=1e-14, gtol=1e-14)
    return 2 * float(found.cost)


def compare_methods() -> tuple[dict[str, Any], list[Merit]]:
    """The largest error up to t = 40 of Euler and RK4 with equal numbers of evaluations of the field."""
    from scipy.integrate import solve_ivp

    print("  Euler against RK4 at equal cost, the truth being DOP853 with a tolerance of 1e-13")
    every = np.arange(4.0, 41.0, 4.0)
    field = jax.jit(lambda t, y: competition(RATES, t, y, None))
    truth = solve_ivp(field, (0, 40), BEGIN, method="DOP853", rtol=1e-13, atol=1e-11, t_eval=every).y.T
    costs, errors = (40, 80, 160, 400, 800), {"Euler": list[float](), "RK4": list[float]()}
    for cost in costs:
        for name, method, n_steps in (("Euler", rs.ode.Euler, cost), ("RK4", rs.ode.RK4, cost // 4)):
            ys = solve(method, 40 / n_steps, RATES, n_steps)
            errors[name].append(float(np.abs(ys[n_steps // 10 - 1 :: n_steps // 10] - truth).max()))
        print(f"  {cost:4d} evaluations: Euler off by {errors['Euler'][-1]:.2e}, RK4 by {errors['RK4'][-1]:.2e}")
    better = [r < e for e, r in zip(errors["Euler"], errors["RK4"], strict=True)]
    ours = f"{errors['RK4'][3]:.1e} against {errors['Euler'][3]:.1e}"
    merit = Merit(
        "ode", "error of RK4 against Euler, 400 evaluations each", ours, "RK4 less, at every cost", all(better)
    )
    return {"evaluations": costs, **errors}, [merit]


def diffrax_merit() -> Merit:
    """RK4 with h = 0.1 against an adaptive fifth-order method of another library, for t = 1, 2, ... 100."""
    what, expected = "largest difference from diffrax, RK4 h=0.1", "< 1e-6"
    try:
        import diffrax
    except ImportError:
        print("  diffrax is not installed, so the comparison with it was not run: pip install diffrax")
        return Merit("ode", what, "not run: no diffrax", expected, True)
    print("  RK4 with h = 0.1 against diffrax: Tsit5, tolerance 1e-10")
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, rates: competition(rates, t, y, None)), diffrax.Tsit5(), 0.0, 100.0, None,
        jnp.array(BEGIN), args=jax.tree.map(jnp.asarray, RATES), saveat=diffrax.SaveAt(ts=jnp.arange(1.0, 101.0)),
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10),
    )  # fmt: skip
    difference = float(jnp.abs(solve(rs.ode.RK4, 0.1, RATES, 1000)[9::10] - solution.ys).max())
    return Merit("ode", what, f"{difference:.1e}", expected, difference < 1e-6)


def draw(settings: Settings, forward: np.ndarray, fits: dict[str, Any], errors: dict[str, Any]) -> None:
    """The forward solution, the fitted curves through the data, the two trainings, and error against cost."""
    import matplotlib.pyplot as plt

    data, names = (TIMES, POPULATIONS), ("species 1", "species 2")
    fig, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
    rs.plot.ode_solution(0.1 * np.arange(1001), np.vstack([BEGIN, forward]), data, names, ax=ax, ylabel="population")
    ax.set(title="two competing species, Euler steps of 0.1, and the published values")
    settings.save(fig, "ode_forward")

    fig, axes = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained", sharey=True)
    for ax, (name, (rates, _, best)) in zip(axes, fits.items(), strict=True):
        ys = np.vstack([BEGIN, solve(rs.ode.Euler, 1.0, rates, 60)])
        rs.plot.ode_solution(np.arange(61), ys, data, names, ax=ax, ylabel="population")
        ax.set(title=f"{name}: sum of squares {best:.3g}")
    settings.save(fig, "ode_inference")

    fig, axes = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    for name, (_, losses, _) in fits.items():
        rs.plot.learning_curve({"loss": losses}, ax=axes[0], label=name)
    axes[0].axhline(OPTIMUM, color="0.4", linestyle=":", label=f"least-squares optimum {OPTIMUM}")
    axes[0].set(title="inference of six rates", ylabel="sum of squares", xscale="symlog", xlim=(0, None))
    axes[0].legend()
    for name in ("Euler", "RK4"):
        axes[1].loglog(errors["evaluations"], errors[name], "o-", label=name)
    axes[1].set(title="equal cost, t up to 40", xlabel="evaluations of dy/dt", ylabel="largest error of a population")
    axes[1].set_xticks(errors["evaluations"], [str(n) for n in errors["evaluations"]])
    axes[1].minorticks_off()
    axes[1].legend()
    settings.save(fig, "ode_methods")
