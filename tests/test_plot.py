"""The figures show what they were given: lines, scales, counts, and errors that name what does not fit."""

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import rnnscan as rs
from rnnscan import plot
from rnnscan.diagnose import GradientOverTime, Surface


DRAW = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def close_figures():
    """No drawing leaves a figure behind, and each can be rendered without a warning."""
    before = dict(plt.rcParams)
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert dict(plt.rcParams) == before


def labels_of(ax):
    return [line.get_label() for line in ax.lines]


def the_line(ax, label):
    return np.stack(next(line for line in ax.lines if line.get_label() == label).get_data())


def assert_line(ax, label, x, y):
    np.testing.assert_array_equal(the_line(ax, label), np.stack([x, y]))


def test_learning_curve_draws_steps_evaluations_and_the_best_one():
    loss, evaluated, steps = np.geomspace(3.0, 0.1, 9), np.asarray([1.5, 0.4, 0.6]), np.asarray([3, 6, 9])
    history = {"loss": loss, "eval_step": steps, "eval_loss": evaluated, "eval_accuracy": 1 - evaluated, "best_step": 6}
    ax = plot.learning_curve(rs.train.Fit(None, None, history | {"stopped": "patience"}), label="Adam")
    assert labels_of(ax) == ["Adam", "Adam, evaluation", "Adam, best (step 6)"]
    assert_line(ax, "Adam", np.arange(9), loss)
    assert_line(ax, "Adam, evaluation", steps, evaluated)
    np.testing.assert_array_equal(the_line(ax, "Adam, best (step 6)")[0], [6, 6])
    assert ax.get_yscale() == "log"


def test_learning_curves_share_axes_in_colours_of_their_own():
    ax = plot.learning_curve({"loss": np.asarray([2.0, 1.0])}, label="one", log=False)
    assert plot.learning_curve({"loss": np.asarray([3.0, -1.0])}, ax=ax, label="two", log=False) is ax
    assert labels_of(ax) == ["one", "two"]
    assert len({line.get_color() for line in ax.lines}) == 2
    assert ax.get_yscale() == "linear"


def test_loss_surface_shows_values_at_their_places():
    a, b = np.linspace(-1, 2, 4), np.linspace(5, 6, 3)
    values = 10.0 ** (a[:, None] + 0 * b)  # log10 of the loss is a
    path, points = np.asarray([[-1.0, 5.0], [0.5, 5.5]]), [(0.0, 5.2), (1.0, 5.9), (1.5, 5.5)]
    ax = plot.loss_surface(Surface(a, b, values, ("w_x", "w_h")), path, points)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("w_x", "w_h")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 2), (5, 6))
    assert_line(ax, "optimiser", *path.T)
    assert [(text.get_text(), text.xy) for text in ax.texts] == list(zip("123", points, strict=True))
    filled = ax.collections[0]
    for level, outline in zip(filled.levels[1:-1], filled.get_paths()[1:], strict=False):
        assert np.min(outline.vertices[:, 0]) == pytest.approx(level)  # a region starts where a is its level
    assert filled.levels[0] == pytest.approx(-1) and filled.levels[-1] == pytest.approx(2)


def test_loss_surface_leaves_infinite_losses_blank_and_draws_zero_as_the_smallest():
    values = np.asarray([[1.0, 10.0, 100.0], [np.inf, 0.0, 1e4], [np.nan, 1.0, 1e5]])
    ax = plot.loss_surface(Surface(np.arange(3.0), np.arange(3.0), values))
    levels = ax.collections[0].levels
    assert levels[0] >= -0.5 and levels[-1] <= 5.5


def test_gradient_over_time_is_symlog_and_one_line_a_leaf():
    norms = (np.abs(DRAW.normal(size=(6, 3))), np.abs(DRAW.normal(size=(6, 3))) * 1e-9)
    signed = np.asarray([-1e5, 1e3, -10.0, 0.0, 1e-3, -1.0])
    result = GradientOverTime(1.0, norms, norms)
    ax = plot.gradient_over_time({"LSTM": result, "sum": signed})
    assert labels_of(ax) == ["LSTM, carry[0]", "LSTM, carry[1]", "sum"]
    assert_line(ax, "LSTM, carry[0]", np.arange(6), norms[0].mean(axis=1))
    assert_line(ax, "LSTM, carry[1]", np.arange(6), norms[1].mean(axis=1))
    assert_line(ax, "sum", np.arange(6), signed)
    assert ax.get_yscale() == "symlog"
    assert ax.get_legend() is not None


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("decades", [2, 7, 60])
def test_ticks_of_the_gradient_axis_do_not_overlap(decades, sign):
    line = np.geomspace(1.0, 10.0**-decades, 9) * np.where(np.arange(9) % 2, 1, sign)
    ax = plot.gradient_over_time(line)
    ax.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert len(boxes) >= 3 and (0 in ax.get_yticks()) == (sign < 0 or decades > 16)  # as far as 0 is in view
    assert all(below.y1 < above.y0 for below, above in zip(boxes, boxes[1:], strict=False))
    assert ax.get_legend() is None


def test_ode_solution_draws_components_and_data_in_one_colour():
    t, y = np.linspace(0, 1, 7), DRAW.normal(size=(7, 2))
    t_i, y_i = np.asarray([0.2, 0.9]), DRAW.normal(size=(2, 2))
    ax = plot.ode_solution(t, y, (t_i, y_i), labels=["prey", "predator"], xlabel="time (days)")
    assert labels_of(ax) == ["prey", "prey, data", "predator", "predator, data"]
    for i, name in enumerate(["prey", "predator"]):
        assert_line(ax, name, t, y[:, i])
        assert_line(ax, f"{name}, data", t_i, y_i[:, i])
    colours = [line.get_color() for line in ax.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert ax.get_xlabel() == "time (days)"
    plot.ode_solution(t, y[:, 0], ax=ax, labels=["other"], dashed=True)
    assert_line(ax, "other", t, y[:, 0])


def test_series_takes_values_with_times_of_their_own():
    t, actual = np.linspace(0, 2, 8), DRAW.normal(size=8)
    later, generated = np.linspace(2, 3, 4), DRAW.normal(size=4)
    ax = plot.series(t, actual, predicted=actual + 0.1, generated=(later, generated))
    assert labels_of(ax) == ["actual", "predicted", "generated"]
    assert_line(ax, "predicted", t, actual + 0.1)
    assert_line(ax, "generated", later, generated)


def test_confusion_counts_and_shows_the_misread_images():
    labels, read = np.asarray([0, 0, 2, 1, 2, 2]), np.asarray([0, 1, 2, 1, 0, 2])
    images = DRAW.uniform(size=(6, 4, 5))
    figure = plot.confusion(labels, read, images)
    matrix, *rest = figure.get_axes()
    np.testing.assert_array_equal(matrix.images[0].get_array(), [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    assert {(text.get_position(), text.get_text()) for text in matrix.texts} == {
        ((0, 0), "1"), ((1, 0), "1"), ((1, 1), "1"), ((0, 2), "1"), ((2, 2), "2"),
    }  # fmt: skip
    assert (matrix.get_xlabel(), matrix.get_ylabel(), matrix.get_title()) == ("read as", "true class", "2 of 6 misread")
    drawn = {ax.get_title(): ax.images[0].get_array() for ax in rest if ax.images}
    assert list(drawn) == ["0 → 1", "2 → 0"]
    np.testing.assert_array_equal(drawn["0 → 1"], images[1])
    np.testing.assert_array_equal(drawn["2 → 0"], images[4])


def test_confusion_with_names_limits_and_no_error():
    names = ["rain", "sun", "snow"]
    figure = plot.confusion([0, 1, 1], [1, 0, 0], np.ones((3, 2, 2)), classes=names, max_images=2)
    matrix, *rest = figure.get_axes()
    assert [tick.get_text() for tick in matrix.get_xticklabels()] == names
    assert [ax.get_title() for ax in rest if ax.images] == ["rain → sun", "sun → rain"]
    perfect = plot.confusion([0, 1], [0, 1], np.ones((2, 2, 2)))
    assert not [ax for ax in perfect.get_axes()[1:] if ax.images]


def two_layers(params, carry, x):
    """Two recurrent layers and what reads them out: two loops, with a product between and one behind them."""
    h, g = carry
    h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
    g = jnp.tanh(h @ params["w_hg"] + g @ params["w_g"])
    return (h, g), g @ params["out"]


def a_plan(**options):
    params = {name: np.ones((4, 4)) for name in ("w_x", "w_h", "w_hg", "w_g", "out")}
    return rs.explain(two_layers, params, (np.ones((2, 4)), np.ones((2, 4))), np.ones((6, 2, 4)), **options)


@pytest.mark.parametrize("options", [{}, {"outputs": "last"}, {"optimize": False}, {"method": "unrolled"}], ids=str)
def test_a_plan_is_boxes_with_what_runs_and_bars_with_what_it_costs(options):
    plan_ = a_plan(**options)
    figure = plot.plan(plan_)
    flow, *bars = figure.get_axes()
    words = [text.get_text() for text in flow.texts]
    shown = [text for text in words if " @ " in text]
    matrices = lambda groups: [group.what.split(" @ ")[1].split()[0] for group in groups if group.products]
    assert [text.split(" @ ")[1].split("\n")[0] for text in shown] == [
        *matrices(plan_.written),
        *matrices(plan_.groups),
    ]
    assert [text.split("\n")[1] for text in shown] == ["64 FLOP"] * len(shown)  # 2 * 2 rows * 4 * 4
    assert {group.where for group in plan_.groups if "loop " not in f"{group.where} "} <= set(words)
    before, after = plan_.before, plan_.after
    pairs = [(before.products, after.products), (before.flops, after.flops), (before.kept, after.kept),
             (before.sum_bytes, after.sum_bytes)]  # fmt: skip
    assert [text.get_text() for text in bars[0].texts] == [str(before.products), str(after.products)]
    for ax, (one, other) in zip(bars, pairs, strict=True):
        first, second = (patch.get_width() for patch in ax.patches)
        assert (first, second) == (1.0, other / one)


@pytest.mark.parametrize("options", [{}, {"optimize": False}], ids=str)
def test_the_words_of_a_plan_fit_their_boxes_and_do_not_overlap(options):
    figure = plot.plan(a_plan(**options))
    figure.canvas.draw()
    flow, *bars = figure.get_axes()
    boxes = [patch.get_window_extent() for patch in flow.patches if type(patch).__name__ == "FancyBboxPatch"]
    texts = [text.get_window_extent() for ax in figure.get_axes() for text in ax.texts if text.get_text()]
    texts += [
        title.get_window_extent()
        for ax in bars
        for title in ax.findobj(matplotlib.text.Text)
        if title.get_text() == ax.get_title(loc="left")
    ]
    whole = figure.bbox
    for text in texts:
        assert whole.x0 <= text.x0 and text.x1 <= whole.x1 and whole.y0 <= text.y0 and text.y1 <= whole.y1
        assert all(box.x0 <= text.x0 and text.x1 <= box.x1 for box in boxes if box.contains(text.x0 + 1, text.y0 + 1))
    assert not [1 for i, a in enumerate(texts) for b in texts[:i] if a.width and b.width and a.overlaps(b)]


T5 = np.arange(5.0)
BAD = {
    "no output": (lambda: plot.series(T5, None), "this cell has no output \\(y is None\\)"),
    "no solution": (lambda: plot.ode_solution(T5, None), "`y` is None.*this cell has no output \\(y is None\\)"),
    "times": (lambda: plot.ode_solution(T5, np.ones((4, 2))), r"`t` has shape \(5,\) and `y` has \(4, 2\)"),
    "batch": (lambda: plot.ode_solution(T5, np.ones((5, 3, 2))), r"`y` must have 2 axes, got shape \(5, 3, 2\)"),
    "names": (lambda: plot.ode_solution(T5, T5, labels=["a", "b"]), r"2 names, but `y` of shape \(5, 1\) has 1"),
    "data": (lambda: plot.ode_solution(T5, T5, (T5, np.ones((5, 2)))), r"`data\[1\]` has shape \(5, 2\), but `y`"),
    "series": (lambda: plot.series(T5, T5, T5[1:]), r"`t` has shape \(5,\) and `predicted` has \(4,\)"),
    "pair": (lambda: plot.series(T5, T5, (T5[1:], T5)), r"`times of predicted` has shape \(4,\) and `predicted` has"),
    "no steps": (lambda: plot.plan(a_plan(n_steps=0)), "a plan .* of no steps, has nothing to draw"),
    "history": (lambda: plot.learning_curve({"cost": T5}), r"dict of arrays with `loss`.*got \['cost'\]"),
    "log": (lambda: plot.learning_curve({"loss": T5}), "pass `log=False`"),
    "surface": (lambda: plot.loss_surface(Surface(T5, T5[1:], np.ones((4, 5)))), r"\(4, 5\), and a and b have 5 and 4"),
    "flat": (lambda: plot.loss_surface(Surface(T5, T5, np.ones((5, 5)))), "no two different finite losses"),
    "negative": (lambda: plot.loss_surface(Surface(T5, T5, np.eye(5) - 2)), "no logarithm; pass `log=False`"),
    "path": (lambda: plot.loss_surface(Surface(T5, T5, np.eye(5) + 1), np.ones((4, 3))), r"`path` must be.*\(4, 3\)"),
    "counter": (lambda: plot.gradient_over_time(GradientOverTime(1.0, None, None)), "no gradient to draw"),
    "logits": (lambda: plot.confusion([0, 1], np.ones((2, 3))), r"`predictions` must be integers.*argmax"),
    "sizes": (lambda: plot.confusion([0, 1], [0, 1, 1]), r"`labels` has shape \(2,\) and `predictions` has \(3,\)"),
    "classes": (lambda: plot.confusion([0, 2], [0, 1], classes="ab"), "2 names, but labels and predictions go up to 2"),
    "images": (lambda: plot.confusion([0, 1], [0, 0], np.ones((2, 64))), r"\(n, height, width\); got \(2, 64\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named_and_leaves_no_figure(name):
    draw, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        draw()
    assert not plt.get_fignums()
