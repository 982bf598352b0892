"""`rnnscan.compat.theano`: the manual's rules one by one, each against numbers worked out by hand or a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat import theano
from tests.helpers import assert_close, count_compiles


X = np.arange(1.0, 6.0)


def test_the_tutorials_doubling():
    outputs, updates = theano.scan(fn=lambda h: h * 2, outputs_info=5, n_steps=3)
    assert outputs.tolist() == [10, 20, 40] and updates == {}


def test_the_tutorials_prior():
    seq = np.array([[2, 1], [0, 1], [1, 1]])
    output, _ = theano.scan(fn=lambda seq, prior: seq + prior * 2, sequences=seq, outputs_info=np.array([0, 0]))
    assert output.tolist() == [[2, 1], [4, 3], [9, 7]]


def test_arguments_come_in_the_order_of_the_manual():
    """The manual's example: taps as written, sequences, outputs that are fed back, then the constants."""
    draw = np.random.default_rng(1)
    s1, s2, s3 = (draw.uniform(0.2, 0.9, n) for n in (9, 5, 8))
    o1, o3 = draw.uniform(0.2, 0.9, 5), 0.3
    weights = np.array([0.31, -0.27, 0.23, 0.19, -0.17, 0.13, 0.11, -0.07, 0.05, 0.03])

    def fn(*arguments):
        assert len(arguments) == 10
        total = sum(w * a for w, a in zip(weights, arguments, strict=True))
        return [jnp.sin(total), total * arguments[3], jnp.cos(total)]

    outputs, _ = theano.scan(
        fn,
        sequences=[{"input": s1, "taps": [-3, 2, -1]}, s2, {"input": s3, "taps": 3}],
        outputs_info=[{"initial": o1, "taps": [-3, -5]}, None, o3],
        non_sequences=[0.7, np.float64(0.4)],
    )
    past1, past3, wanted = list(o1), [o3], []
    for i in range(4):  # s1 gives 9 - 3 - 2 steps from t = 3 on, s2 five from t = 0 on, s3 five from t = 0 on
        seen = [s1[i], s1[i + 5], s1[i + 2], s2[i], s3[i + 3], past1[-3], past1[-5], past3[-1], 0.7, 0.4]
        total = np.dot(weights, seen)
        wanted.append([np.sin(total), total * s2[i], np.cos(total)])
        past1.append(wanted[-1][0]), past3.append(wanted[-1][2])
    assert_close(outputs, list(map(jnp.asarray, zip(*wanted, strict=True))))


def decay(x, h):
    return 0.5 * h + x


@pytest.mark.parametrize(
    "info",
    [2.0, [2.0], {"initial": 2.0}, [{"initial": 2.0, "taps": [-1]}], (np.float64(2.0),), {"initial": 2, "taps": -1}],
    ids=str,
)
def test_forms_of_outputs_info_say_the_same(info):
    outputs, _ = theano.scan(decay, X, info)
    assert outputs.tolist() == [2.0, 3.0, 4.5, 6.25, 8.125]


@pytest.mark.parametrize("info", [None, [], [None], [{}], {}], ids=str)
def test_no_feedback(info):
    outputs, _ = theano.scan(square, [X], info, return_list=True)
    assert [y.tolist() for y in outputs] == [[1.0, 4.0, 9.0, 16.0, 25.0]]


def square(x):
    return x * x


def test_of_a_long_initial_value_the_first_rows_count():
    outputs, _ = theano.scan(
        lambda near, far: near + far, outputs_info={"initial": [0, 1, 50], "taps": [-1, -2]}, n_steps=3
    )
    assert outputs.tolist() == [1, 2, 3]


def pair(a, b):
    return [10 * a + b, a]


def test_number_of_steps_and_direction():
    """The shortest sequence decides; backwards, n_steps visits the last steps, the newest first."""
    both = [{"input": X, "taps": [0, 1]}]
    lists = lambda **options: [y.tolist() for y in theano.scan(pair, both, **options)[0]]
    assert lists() == [[12.0, 23.0, 34.0, 45.0], [1.0, 2.0, 3.0, 4.0]]
    assert lists(n_steps=2) == [[12.0, 23.0], [1.0, 2.0]]
    assert lists(go_backwards=True) == [[45.0, 34.0, 23.0, 12.0], [4.0, 3.0, 2.0, 1.0]]
    assert lists(go_backwards=True, n_steps=2) == [[45.0, 34.0], [4.0, 3.0]]
    short, _ = theano.scan(pair, [X, X[:2] * 7])
    assert [y.tolist() for y in short] == [[17.0, 34.0], [1.0, 2.0]]
    short, _ = theano.scan(pair, [X, X[:2] * 7], go_backwards=True)  # each is flipped before it is cut
    assert [y.tolist() for y in short] == [[64.0, 47.0], [5.0, 4.0]]


def test_one_step_backwards_reads_the_last_element():
    """PyTensor 3.0.7 takes a short cut for n_steps=1 that forgets go_backwards, and reads the first."""
    assert theano.scan(square, X, n_steps=1, go_backwards=True)[0].tolist() == [25.0]


def test_no_step_keeps_the_shape_of_an_element():
    """PyTensor 3.0.7 gives (0, 0) for outputs that are not fed back."""
    fn = lambda x, h: [h + x, x * np.array([1.0, 2.0, 3.0])]
    for options in ({"sequences": X[:0]}, {"sequences": X, "n_steps": 0}):
        (h, y), _ = theano.scan(fn, outputs_info=[np.float64(1.0), None], **options)
        assert (h.shape, y.shape, y.dtype) == ((0,), (0, 3), np.float64)


def test_until_keeps_the_step_that_fires():
    step = lambda x, h: (h + x, {}, theano.until(h + x >= 6))
    outputs, updates = theano.scan(step, X, 0.0)
    assert outputs.tolist() == [1.0, 3.0, 6.0]
    assert (int(updates["n_steps"]), bool(updates["stopped"])) == (3, True)
    outputs, updates = theano.scan(step, X / 10, 0.0)
    assert outputs.shape == (5,)
    assert (int(updates["n_steps"]), bool(updates["stopped"])) == (5, False)
    dx, dh = jax.grad(lambda x, h: jnp.sum(theano.scan(step, x, h)[0] ** 2), (0, 1))(X, 0.0)  # sums 1, 3, 6
    assert dx.tolist() == [20.0, 18.0, 12.0, 0.0, 0.0] and dh == 20.0


def test_until_under_jit_says_trim_and_takes_it():
    step = lambda x, h: (h + x, theano.until(h + x >= 6))
    call = lambda x, **options: theano.scan(step, x, 0.0, **options)
    for transformed, x in ((jax.jit(call), X), (jax.vmap(call), X[None])):
        with pytest.raises(TypeError, match="Pass trim=False: the outputs then keep the length of the bound"):
            transformed(x)
    outputs, updates = jax.jit(lambda x: call(x, trim=False))(X)
    assert outputs.tolist() == [1.0, 3.0, 6.0, 0.0, 0.0] and updates["n_steps"] == 3
    rows, updates = jax.vmap(lambda x: call(x, trim=False))(np.stack([X, X[::-1]]))
    assert rows.tolist() == [[1.0, 3.0, 6.0, 0.0, 0.0], [5.0, 9.0, 0.0, 0.0, 0.0]]
    assert updates["n_steps"].tolist() == [3, 2]


def test_truncate_gradient_is_not_truncated_backpropagation():
    """The last k steps of the sequence have derivatives and nothing earlier has, not even a map (as in Theano)."""

    def derivatives(k, fn=decay, start=0.3, taps=-1):
        run = lambda x, h: jnp.sum(theano.scan(fn, x, {"initial": h, "taps": taps}, truncate_gradient=k)[0])
        return [np.asarray(g).tolist() for g in jax.grad(run, (0, 1))(X, jnp.asarray(start))]

    assert derivatives(2) == [[0.0, 0.0, 0.0, 1.5, 1.0], 0.0]
    assert derivatives(9) == derivatives(-1) == [[1.9375, 1.875, 1.75, 1.5, 1.0], 0.96875]
    each = jax.grad(lambda x: jnp.sum(theano.map(square, x, truncate_gradient=2)[0]))(X)
    assert each.tolist() == [0.0, 0.0, 0.0, 8.0, 10.0]
    # of two initial rows step 1 reads the newer one itself: y1 = r/4 + ..., y2 = y1/2, y3 = y2/2 + y1/4, y4 alike
    two = lambda x, far, near: 0.5 * near + 0.25 * far + x
    assert derivatives(4, two, [3.0, 7.0], [-2, -1])[1] == [0.0, 0.25 + 0.125 + 0.125 + 0.09375]


def test_truncate_gradient_counts_from_the_stop():
    step = lambda x, h: (0.5 * h + x, theano.until(x > 3.5))

    def derivative(**options):
        return jax.grad(lambda x: jnp.sum(theano.scan(step, x, 0.3, truncate_gradient=2, **options)[0]))

    assert derivative()(X).tolist() == [0.0, 0.0, 1.5, 1.0, 0.0]
    assert jax.jit(derivative(trim=False))(X).tolist() == [0.0, 0.0, 1.5, 1.0, 0.0]
    early = lambda x: jnp.sum(theano.scan(step, x, 0.3, truncate_gradient=4, trim=False)[0])
    assert jax.grad(early)(X[2:]).tolist() == [1.5, 1.0, 0.0]  # fewer steps ran than are kept


def minus(x, accumulator):
    return 2 * accumulator - x


def test_folds_call_fn_with_x_first():
    assert theano.foldl(minus, X, 1.0)[0] == 32 - 16 - 16 - 12 - 8 - 5
    assert theano.foldr(minus, X, 1.0)[0] == 32 - 80 - 32 - 12 - 4 - 1
    assert theano.reduce(minus, X, 1.0)[0] == theano.foldl(minus, X, 1.0)[0]
    assert theano.reduce(minus, X, 1.0, go_backwards=True)[0] == theano.foldr(minus, X, 1.0)[0]
    last, _ = theano.reduce(lambda x, far, near: [far + near, x * x], X, [{"initial": [1, 1], "taps": [-2, -1]}, None])
    assert (last[0], last[1]) == (13, 25.0)
    stopped, updates = jax.jit(
        lambda x: theano.reduce(lambda x, a: (a + x, theano.until(a + x > 5)), x, 0.0)
    )(X)  # fmt: skip
    assert stopped == 6.0 and updates["n_steps"] == 3


def test_an_empty_fold_is_its_initial_value():
    """And zero for an output that is not fed back, where PyTensor indexes an empty array."""
    fn = lambda x, far, near: [far + near, x]
    (value, other), _ = theano.reduce(fn, X[:0], [{"initial": [3.0, 4.0], "taps": [-2, -1]}, None])
    assert (value, other) == (4.0, 0.0)


def test_numbers_take_the_dtype_of_the_step_and_arrays_must_have_it():
    assert theano.scan(decay, X, 0)[0].dtype == np.float64
    assert theano.scan(decay, X.astype(np.float32), 0)[0].dtype == np.float32
    both, _ = theano.scan(lambda x, a, b: [b * 2, a + x], X[:3], [0, 1])  # a's dtype follows b's, which follows x's
    assert [y.tolist() for y in both] == [[2.0, 2.0, 8.0], [1.0, 4.0, 5.0]] and both[0].dtype == np.float64
    with pytest.raises(rs.CarryError, match="is int64.., but output 0 of `<lambda>` is float64"):
        theano.scan(lambda x, h: x, X, np.array(0))
    assert theano.scan(lambda x, h: h + x, np.arange(3), np.array(0))[0].tolist() == [0, 1, 3]


def test_what_fn_closes_over_gets_the_gradient_of_an_argument():
    def by_argument(w):
        return jnp.sum(jnp.cos(theano.scan(lambda x, h, w: w * h + x, X, 0.3, non_sequences=w)[0]))

    def by_closure(w):
        return jnp.sum(jnp.cos(theano.scan(lambda x, h: w * h + x, X, 0.3)[0]))

    assert_close(jax.grad(by_closure)(0.7), jax.grad(by_argument)(0.7))
    assert_close(jax.hessian(by_closure)(0.7), jax.hessian(by_argument)(0.7))


def test_map_takes_several_sequences_and_constants():
    outputs, updates = theano.map(lambda x, y, c: [x * y, c - x], [X, X[:3]], non_sequences=10.0, go_backwards=True)
    assert [y.tolist() for y in outputs] == [[15.0, 8.0, 3.0], [5.0, 6.0, 7.0]] and updates == {}


def test_a_key_is_a_state(key):
    """What Theano's random streams keep in updates; also where a truncation starts a second loop from it."""

    def fn(key):
        key, now = jax.random.split(key)
        return key, jax.random.normal(now, (), jnp.float64)

    key_t, wanted = key, []
    for _ in range(3):
        key_t, now = jax.random.split(key_t)
        wanted.append(float(jax.random.normal(now, (), jnp.float64)))
    for k in (-1, 1):
        assert theano.scan(fn, None, [key, None], n_steps=3, truncate_gradient=k)[0][1].tolist() == wanted


def test_a_scan_in_a_scan():
    """An outer step closes over nothing but its arguments, an inner one over the outer's."""

    def row(x, total):
        inner, _ = theano.scan(lambda a, h: h * total + a, x, 0.0)
        return total + inner[-1]

    table = np.arange(1.0, 7.0).reshape(3, 2)
    outputs, _ = theano.scan(row, table, 1.0)
    total, wanted = 1.0, []
    for a, b in table:
        total += a * total + b
        wanted.append(total)
    assert outputs.tolist() == wanted


def test_updates_of_a_scan_inside_are_handed_on_as_in_theano():
    """Theano's idiom of a sampler in a recurrence; what `until` puts into them is no update."""

    def chain(x, total, *, pack):
        halves, updates = theano.scan(lambda m: (m / 2, theano.until(m < 1)), outputs_info=x, n_steps=9, trim=False)
        return [total + halves.sum()], pack(updates)

    for pack in (lambda u: u, dict, lambda u: list(u.items())):
        outputs, updates = theano.scan(lambda x, total, pack=pack: chain(x, total, pack=pack), X[:2], [0.0])
        # 1 -> 0.5, 0.25, the step that sees 0.5 being the last; 2 -> 1, 0.5, 0.25
        assert outputs.tolist() == [0.75, 2.5] and updates == {}


def test_a_second_call_compiles_nothing():
    class Net:
        def step(self, x, h):
            return 0.5 * h + x, theano.until(h > 100)

    net = Net()
    run = lambda: theano.scan(net.step, {"input": X, "taps": [-1]}, 0.3, go_backwards=True)
    run()
    with count_compiles() as compiled:
        run()
    assert compiled == []
