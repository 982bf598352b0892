"""`explain` says where each operation of a step runs, what that costs, and what its author could change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.user_cells import CONCAT_LSTM, HIDDEN, IN, LEAKY, NORM_GRU, OUT, concat_lstm, leaky, matrices, norm_gru


STEPS, ROWS = 11, 2
XS = np.random.default_rng(1).normal(size=(STEPS, ROWS, IN))
H_0 = jnp.full((ROWS, HIDDEN), 0.1)
W = matrices(w_x=(IN, HIDDEN), w_h=(HIDDEN, HIDDEN), w_y=(HIDDEN, OUT))


def products(plan):
    """`[(place, product)]` in the order in which they run."""
    return [(group.where, group.what) for group in plan.groups if group.products]


def stacked(function, params):
    """Bytes over time that `jax.linearize` hands from the forward to the tangent pass, without xs and ys."""

    def forward(params, xs):
        (carry, ys), tangent = jax.linearize(lambda params: function(params, xs), params)
        return jax.tree.leaves((carry, ys)), jax.tree.leaves(jax.make_jaxpr(tangent)(params).consts)

    closed = jax.make_jaxpr(forward)(params, XS)
    n = len(jax.tree.leaves(jax.eval_shape(lambda p: function(p, XS), params)))
    known = [*closed.jaxpr.invars, *closed.jaxpr.outvars[:n]]
    kept = {v for v in closed.jaxpr.outvars[n:] if v.aval.shape[:1] == (STEPS,) and v not in known}
    return sum(v.aval.size * v.aval.dtype.itemsize for v in kept)


def elman(params, h, x):
    h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
    return h, h @ params["w_y"]


def test_a_product_with_x_runs_before_the_loop_and_one_that_only_ys_need_after_it():
    plan = rs.explain(elman, W, H_0, XS)
    assert products(plan) == [
        ("before the loop", f"x ({ROWS}, {IN}) @ w_x ({IN}, {HIDDEN})"),
        ("loop", f"carry ({ROWS}, {HIDDEN}) @ w_h ({HIDDEN}, {HIDDEN})"),
        ("after the loop", f"new carry ({ROWS}, {HIDDEN}) @ w_y ({HIDDEN}, {OUT})"),
    ]
    in_x, in_h, in_y = (2 * ROWS * a * b for a, b in ((IN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, OUT)))
    assert [group.flops for group in plan.groups if group.products] == [in_x, in_h, in_y]
    around = 2 * ROWS * HIDDEN  # one sum and one tanh
    assert (plan.before.flops, plan.after.flops) == (in_x + in_h + in_y + around, in_h + around)
    assert [group.reason for group in plan.at("loop")] == ["the next carry depends on it"] * 2
    assert (plan.cell, plan.n_steps, plan.piece, plan.loops, plan.rewritten) == ("elman", STEPS, STEPS, 1, True)


def test_it_names_the_line_of_the_users_code():
    (first, *_) = rs.explain(elman, W, H_0, XS).groups
    line = elman.__code__.co_firstlineno + 1
    assert first.place == f"test_explain.py:{line}"
    (split, *_) = rs.explain(concat_lstm, CONCAT_LSTM, (H_0, H_0), XS).at("before the loop")
    assert split.place == f"users_cells.py:{concat_lstm.__code__.co_firstlineno + 3}"


def test_a_concatenation_is_cut_into_its_products():
    plan = rs.explain(concat_lstm, CONCAT_LSTM, (H_0, H_0), XS)
    kernel = f"({HIDDEN}, {4 * HIDDEN})"
    assert products(plan) == [
        ("before the loop", f"x ({ROWS}, {IN}) @ kernel[:{IN}] ({IN}, {4 * HIDDEN})"),
        ("loop", f"carry[1] ({ROWS}, {HIDDEN}) @ kernel[{IN}:] {kernel}"),
    ]
    assert [group.what for group in plan.at("once")] == [f"kernel[{IN}:], kernel[:{IN}]"]
    (written, *_) = plan.written
    assert written.what == f"[x, carry[1]] ({ROWS}, {IN + HIDDEN}) @ kernel ({IN + HIDDEN}, {4 * HIDDEN})"
    assert (plan.before.products, plan.after.products) == (1, 1)


def test_library_cells_leave_their_products_with_the_carry():
    for make, n in ((rs.cells.LSTM, 1), (rs.cells.GRU, 1), (rs.cells.Elman, 1)):
        cell = make(IN, HIDDEN)
        plan = rs.explain(cell, cell.init(jax.random.key(0)), None, XS)
        assert (plan.before.products, plan.after.products) == (2, n)
        assert [where for where, _ in products(plan)] == ["before the loop", "loop"]


@pytest.mark.parametrize(("outputs", "where"), [("all", "after the loop"), ("last", "at the end"), ("none", None)])
def test_the_softmax_runs_where_the_outputs_are_wanted(outputs, where):
    plan = rs.explain(leaky, LEAKY, H_0, XS, outputs=outputs)
    read_out = f"new carry ({ROWS}, {HIDDEN}) @ w_out ({HIDDEN}, {OUT})"
    assert dict((what, place) for place, what in products(plan)).get(read_out) == where
    assert (plan.after.products, plan.loops) == (2, 1)
    assert [what for place, what in products(plan) if place == "loop"] == [
        f"carry ({ROWS}, {HIDDEN}) @ w_rec ({HIDDEN}, {HIDDEN})", f"({ROWS}, {HIDDEN}) @ w_mid ({HIDDEN}, {HIDDEN})",
    ]  # fmt: skip


def test_layers_run_one_after_another_with_a_product_between():
    stack = rs.wrap.Stack(rs.cells.LSTM(IN, 4), rs.cells.LSTM(4, HIDDEN))
    plan = rs.explain(stack, stack.init(jax.random.key(0)), None, XS)
    assert [where for where, _ in products(plan)] == ["before the loops", "loop 1", "between loops 1 and 2", "loop 2"]
    assert [what.split(" @ ")[1].split()[0] for _, what in products(plan)] == [
        "params[0].w_x",
        "params[0].w_h",
        "params[1].w_x",
        "params[1].w_h",
    ]
    assert plan.loops == 2


def test_weights_that_a_cell_closes_over_are_called_so():
    cell = lambda _, h, x: (jnp.tanh(x @ W["w_x"] + h @ W["w_h"]),) * 2
    plan = rs.explain(cell, None, H_0, XS)
    shape = lambda name: str(W[name].shape)
    assert dict(products(plan)) == {
        "before the loop": f"x ({ROWS}, {IN}) @ closed-over {shape('w_x')}",
        "loop": f"carry ({ROWS}, {HIDDEN}) @ closed-over {shape('w_h')}",
    }


def test_a_map_has_no_loop():
    plan = rs.explain(lambda params, _, x: (None, jnp.tanh(x @ params["w_x"])), W, None, XS)
    assert {group.where for group in plan.groups} == {"all steps"}
    assert (plan.loops, plan.after.products, plan.after.flops) == (0, 0, 0)
    assert "there is no loop" in str(plan)


RESETS = np.arange(STEPS * ROWS).reshape(STEPS, ROWS) % 5 == 3
OPTIONS = [{}, {"reverse": True}, {"lengths": np.array([7, 11])}, {"resets": RESETS}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "none")
def test_it_explains_what_the_options_make_of_the_loop(options):
    plan = rs.explain(elman, W, H_0, XS, **options)
    assert [where for where, _ in products(plan)] == ["before the loop", "loop", "after the loop"]
    assert (plan.before.products, plan.after.products) == (3, 1)
    assert all(name in plan.options for name in options)


def test_a_dropout_needs_its_key_and_gets_it():
    cell = rs.wrap.Dropout(rs.cells.Elman(IN, HIDDEN), input=0.3)
    params = cell.init(jax.random.key(0))
    plan = rs.explain(cell, params, None, XS, key=jax.random.key(1))
    assert [where for where, _ in products(plan)] == ["before the loop", "loop"]
    with pytest.raises(ValueError, match="needs `key="):
        rs.explain(cell, params, None, XS)


def test_bytes_stored_are_those_that_linearize_hands_on():
    plan = rs.explain(elman, W, H_0, XS)
    plain = lambda params, xs: jax.lax.scan(lambda h, x: elman(params, h, x), H_0, xs)
    ours = lambda params, xs: rs.scan(elman, params, H_0, xs)
    assert plan.before.kept * STEPS == stacked(plain, W) > 0
    assert plan.after.kept * STEPS == stacked(ours, W) > 0
    assert plan.after.kept == ROWS * HIDDEN * 8  # h, and nothing else


def test_of_cheap_operations_only_what_the_products_gave_is_stored():
    rows = 1000  # few rows make a small step, whose products run again as well
    plan = rs.explain(norm_gru, NORM_GRU, jnp.ones((rows, HIDDEN)), np.ones((STEPS, rows, IN)))
    assert plan.after.kept == rows * (3 + 3) * HIDDEN * 8  # of three gates x @ w, and h @ u without its mean
    assert plan.before.kept > 4 * plan.after.kept
    plan = rs.explain(norm_gru, NORM_GRU, H_0, XS)
    assert plan.after.kept == ROWS * 3 * HIDDEN * 8  # x @ w


def test_gradients_of_params_are_summed_by_plain_scan_only():
    plan = rs.explain(elman, W, H_0, XS)
    assert (plan.before.sums, plan.before.sum_bytes) == (3, sum(leaf.nbytes for leaf in jax.tree.leaves(W)))
    assert (plan.after.sums, plan.after.sum_bytes) == (0, 0)
    twice = lambda params, h, x: (jnp.tanh(h @ params["w_h"] + h @ params["w_h"].T), None)
    plan = rs.explain(twice, {"w_h": W["w_h"]}, H_0, None, n_steps=4)
    assert (plan.before.sums, plan.after.sums) == (1, 0)
    assert "2 products in the loop read the same carry (2, 5)" in str(plan)


def test_weights_that_the_cell_closes_over_count():
    plan = rs.explain(lambda _, h, x: elman(W, h, x), None, H_0, XS)
    told = rs.explain(elman, W, H_0, XS)
    assert (plan.before, plan.after) == (told.before, told.after)
    assert [where for where, _ in products(plan)] == [where for where, _ in products(told)]


def branching(choose):
    def step(params, h, x):
        z = jax.lax.cond(choose(h, x), lambda: x @ params["w_x"], lambda: -x @ params["w_x"])
        return jnp.tanh(z + h @ params["w_h"]), None

    return step


def test_a_branch_stays_and_jnp_where_is_named_where_it_helps():
    of_x = branching(lambda h, x: x.sum() > 0)
    plan = rs.explain(of_x, W, H_0, XS)
    (cond, _) = [group for group in plan.at("loop") if group.products]
    assert cond.what.startswith("cond with one product") and cond.reason == "its branch is chosen anew at each step"
    assert f"`lax.cond` (test_explain.py:{of_x.__code__.co_firstlineno + 1}) stays in the loop" in str(plan)
    assert "`jnp.where`" in str(plan)
    of_h = rs.explain(branching(lambda h, x: h.sum() > 0), W, H_0, XS)
    assert [group.reason for group in of_h.at("loop")][0] == "the next carry depends on it"
    assert "`jnp.where` computes both sides" in " ".join(str(of_h).split())


def closed(kind):
    """A step whose products are inside one operation."""
    step = lambda params, h, x: jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
    if kind == "jax.checkpoint":
        inside = jax.checkpoint(step)
    elif kind == "cond":
        inside = lambda params, h, x: jax.lax.cond(h[0, 0] > 0, lambda: step(params, h, x), lambda: h)
    else:
        inside = lambda params, h, x: jax.lax.scan(lambda c, _: (step(params, c, x), None), h, length=2)[0]
    return lambda params, h, x: (inside(params, h, x),) * 2


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("jax.checkpoint", "Without `jax.checkpoint` a step is taken apart"),
        ("cond", "`jnp.where` computes both sides"),
        ("scan", "write before it what does not change within it"),
    ],
)
def test_products_inside_an_operation_are_told_of(kind, instead):
    plan = rs.explain(closed(kind), W, H_0, XS)
    text = " ".join(str(plan).split())
    assert f"What is inside `{kind} with" in text and instead in text
    assert plan.after.products >= 2 and "rewrites do not open" in plan.why


def test_gradients_that_are_summed_up_at_each_step_are_told_of():
    plan = rs.explain(closed("scan"), W, H_0, XS)
    assert plan.after.sums == 2
    assert not rs.explain(closed("scan"), W, H_0, XS, optimize=False).advice
    assert any(hint.startswith("Gradients of params are still summed up") for hint in plan.advice)
    assert not any("summed up" in hint for hint in rs.explain(elman, W, H_0, XS).advice)


def test_no_sentence_stands_twice():
    twice = lambda z: jax.lax.while_loop(lambda z: z.max() > 1, lambda z: z / 2, z)
    step = lambda params, h, x: (jnp.tanh(h @ params["w_h"]), twice(twice(x @ params["w_x"])))
    hints = rs.explain(step, W, H_0, XS).advice
    assert len(hints) == len(set(hints)) and any("number of steps that nobody knows" in hint for hint in hints)


def test_a_place_that_does_not_exist_is_refused():
    plan = rs.explain(elman, W, H_0, XS)
    assert plan.at("between loops 1 and 2") == ()
    with pytest.raises(ValueError, match="`Plan.at` got 'before', which is no place"):
        plan.at("before")


def test_a_loop_of_unknown_length_stays_and_has_no_gradient():
    def step(params, h, x):
        z = jax.lax.while_loop(lambda z: jnp.abs(z).max() > 1, lambda z: z / 2, x @ params["w_x"])
        return jnp.tanh(z + h @ params["w_h"]), None

    plan = rs.explain(step, W, H_0, XS)
    assert [group.reason for group in plan.at("loop") if group.what.startswith("while")] == [
        "it is a loop of unknown length"
    ]
    assert plan.before.kept is None and plan.after.sums is None
    assert "`fori_loop` with fixed bounds would leave it" in str(plan) and "for the gradient" not in str(plan)


def test_an_effect_stays_and_is_named(capfd):
    def step(params, h, x):
        z = x @ params["w_x"]
        jax.debug.print("z = {}", z)
        return jnp.tanh(z + h @ params["w_h"]), None

    plan = rs.explain(step, W, H_0, XS)
    jax.effects_barrier()
    assert "it has an effect" in [group.reason for group in plan.at("loop")]
    assert "has an effect, so it runs at each step" in " ".join(str(plan).split())
    assert "z =" not in capfd.readouterr().out  # nothing was run


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"optimize": False}, "`optimize=False` runs the loop as it is written"),
        ({"optimize": ()}, "`optimize=False` runs the loop as it is written"),
        ({"method": "reference"}, '`method="reference"` writes out every step'),
        ({"method": "unrolled"}, '`method="unrolled"` writes out every step'),
        ({"debug": True}, "`debug=True` looks at the values of each step"),
    ],
    ids=str,
)
def test_what_is_not_taken_apart_says_why(options, why):
    plan = rs.explain(elman, W, H_0, XS, **options)
    assert plan.why.startswith(why) and not plan.rewritten
    assert [place for place, _ in products(plan)] == ["loop"] * 3
    assert plan.before == plan.after and plan.before.products == 3
    assert why in str(plan)


def test_a_cell_without_products_gains_nothing():
    plan = rs.explain(lambda keep, h, x: (keep * h + x.sum(), h), 0.5, H_0, XS)
    assert not plan.rewritten and "the step has no product" in plan.why
    of_params = rs.explain(lambda keep, h, x: (h + (keep @ keep).sum(), h), jnp.eye(2), H_0, XS)
    assert "no product of the step reads xs or the carry" in of_params.why
    assert rs.explain(elman, W, H_0, XS, n_steps=0).why == "There is no step to run."


@pytest.mark.parametrize(
    ("wanted", "in_loop", "reason"),
    [
        (("hoist",), 2, "`sink` is not among the rewrites wanted"),
        (("sink",), 3, "`hoist` is not among the rewrites wanted"),
        (("hoist", "sink"), 1, None),
    ],
)
def test_a_rewrite_that_is_not_wanted_is_the_reason(wanted, in_loop, reason):
    plan = rs.explain(elman, W, H_0, XS, optimize=wanted)
    assert (plan.after.products, plan.after.sums) == (in_loop, plan.after.products)  # each matrix in the loop is summed
    assert {group.reason for group in plan.groups if group.products} - {"the next carry depends on it", ""} == (
        {reason} if reason else set()
    )


def test_the_table_says_it_in_words_and_fits_the_page():
    text = str(rs.explain(leaky, LEAKY, H_0, XS))
    assert text.startswith(f"leaky_integrator: 11 steps; carry float64[{ROWS},{HIDDEN}]; x float64[{ROWS},{IN}]\n")
    assert max(map(len, text.splitlines())) <= 100
    cost = [line.split() for line in text.splitlines() if line.startswith("products in the loop")]
    assert [line[-2:] for line in cost] == [["4", "2"]]
    assert "What still costs: 2 products at each step, the largest of them `carry (2, 5) @ w_rec (5, 5)`" in " ".join(
        text.split()
    )


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"length": 3}, TypeError, "`explain` has no option `length`"),
        ({"optimize": "hoist"}, TypeError, "optimize"),
        ({"outputs": "first"}, ValueError, "`outputs` must be one of"),
        ({"unroll": 2, "method": "unrolled"}, ValueError, "unroll"),
        ({"n_steps": 12}, rs.SequenceError, "n_steps"),
        ({"lengths": np.array([3, 12])}, rs.LengthError, "12"),
    ],
    ids=str,
)
def test_a_bad_option_raises_as_in_scan(options, error, says):
    with pytest.raises(error, match=says):
        rs.explain(elman, W, H_0, XS, **options)
    with pytest.raises(error):
        rs.scan(elman, W, H_0, XS, **options)
