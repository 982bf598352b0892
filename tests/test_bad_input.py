"""What `scan` says to wrong cells and carries: one row a fault (C: carry and cell, N: numbers).

Every row but the two on numbers fails while the cell is traced, so that nothing is compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.faults import CARRY, OUTPUT, XS, H, State, fails, refused, run


ELMAN, LSTM = rs.cells.Elman(3, 4), rs.cells.LSTM(3, 4)
PARAMS = ELMAN.init(jax.random.key(0), jnp.float64)
ZERO_AT_2 = np.where(XS == XS[2, 1, 0], 0, XS)  # step 2, row 1


def f32(*shape):
    return np.zeros(shape, np.float32)


def branches(params, h, x):
    return (h, x) if h.sum() > 0 else (h + x, x)


CELLS = [
    fails("C1 carry structure changes", CARRY, run(lambda p, c, x: ({"h": (c["h"], x)}, x), {"h": H}),
          "cell `<lambda>` returned a carry with a different structure: carry['h'] is an array float64[2,3] on input "
          "but a tuple of 2 on output. Return the carry in the structure you were given."),
    fails("C1 tuple becomes list", CARRY, run(lambda p, c, x: ([*c], x), (H, H)),
          "carry is a tuple of 2 on input but a list of 2 on output"),
    fails("C1 named tuple becomes tuple", CARRY, run(lambda p, c, x: (tuple(c), x), State(H, H)),
          "carry is a State of 2 on input but a tuple of 2 on output"),
    fails("C1 key missing", CARRY, run(lambda p, c, x: ({"h": x}, x), {"h": H, "c": H}),
          "carry is a dict with keys ['c', 'h'] on input but a dict with keys ['h'] on output"),
    fails("C1 leaf becomes None", CARRY, run(lambda p, c, x: ((x, None), x), (H, H)),
          "carry[1] is an array float64[2,3] on input but None on output"),
    fails("C1 carry not given", CARRY, run(lambda p, c, x: (x, x), None),
          "was given no carry (None) and returned an array float64[2,3]. Give `scan` the carry"),
    fails("C2 shape changes", CARRY, run(lambda p, c, x: ({"h": jnp.concatenate([c["h"], x], -1)}, x), {"h": H}),
          "`carry['h']` went in as float64[2,3] and came out as float64[2,6] (did the cell concatenate x into it?)"),
    fails("C2 axis summed away", CARRY, run(lambda p, c, x: ((c + x).sum(-1), None)),
          "float64[2,3] and came out as float64[2] (did the cell sum over an axis"),
    fails("C2 part cut out", CARRY, run(lambda p, c, x: ((c + x)[:, :2], None)),
          "float64[2,3] and came out as float64[2,2] (did the cell cut a part out"),
    fails("C2 batch axis missing", CARRY, run(lambda p, c, x: ((c[0] + x,), x), (H[0],)),
          "`carry[0]` went in as float64[3] and came out as float64[2,3] (x has axes that it lacks: start from "
          "`jnp.broadcast_to(carry[0], (2, 3))`"),
    fails("C5 int32 carry, float step", CARRY, run(lambda p, c, x: (c.astype(float) + x, x), jnp.int32(0), XS[:, 0, 0]),
          "`carry` is int32 but the cell returns float64 ...Start from a float: `jnp.zeros((), jnp.float64)`, or the "
          "Python number 0.0"),
    fails("C5 np.int64 carry, float step", CARRY,
          run(lambda p, c, x: (c.astype(float) + x, x), np.int64(0), XS[:, 0, 0]),
          "`carry` is int64 but the cell returns float64 ...Start from a float"),
    fails("C5 bool carry, int step", CARRY,
          run(lambda p, c, x: (c.astype(int) + 1, None), jnp.asarray(False), None, n_steps=3),
          "`carry` is bool but the cell returns int64 ...Start from int64"),
    fails("C6 bfloat16 carry, float32 params", CARRY,
          run(lambda p, c, x: (p["W"] * c.astype(jnp.float32), x), jnp.zeros(3, jnp.bfloat16), params={"W": f32(3)}),
          "`carry` is bfloat16 but the cell returns float32 ...That is because `params['W']` is float32. Cast the "
          "result with `.astype(carry.dtype)`, or cast params, or start from a float32"),
    fails("C6 float32 carry, float64 x", CARRY, run(lambda p, c, x: (c.astype(x.dtype) + x, None), f32(2, 3)),
          "`carry` is float32 but the cell returns float64 ...start from a float64 carry"),
    fails("C7 scalar 0.0, vector result", CARRY, run(lambda p, c, x: (c + x, None), 0.0),
          "`carry` went in as float64[] and came out as float64[2,3] (start from `jnp.zeros((2, 3))`)"),
    fails("C8 None carry", OUTPUT, run(lambda p, c, x: (None, x)),
          "returned None as its carry; a cell must return (carry, y)"),
    fails("C8 nothing returned", OUTPUT, run(lambda p, c, x: None),
          "must return (carry, y), got None. Does it end with `return carry, y`?"),
    fails("C9 one array", OUTPUT, run(lambda p, c, x: c + x),
          "must return (carry, y), got one array float64[2,3]. If it has no output write: `return carry, None`"),
    fails("C9 stacked array", OUTPUT, run(lambda p, c, x: jnp.stack([c, x])),
          "got one array float64[2,2,3]"),
    fails("C9 tuple of three", OUTPUT, run(lambda p, c, x: (c, c, x)),
          "got a tuple of 3. A carry of several parts is one tuple: `return (h, c), y`"),
    fails("C9 dict", OUTPUT, run(lambda p, c, x: {"carry": c, "y": x}),
          "got one dict with keys ['carry', 'y']"),
    fails("C11 (y, carry), other shapes", CARRY, run(lambda p, c, x: (x[:, :1], c + x)),
          "went in as float64[2,3]...Did you return (y, carry)? rnnscan cells return (carry, y)"),
    fails("C11 (y, carry), other structures", CARRY, run(lambda p, c, x: (x, (c[0] + x, c[1])), (H, H)),
          "carry is a tuple of 2 on input but an array...Did you return (y, carry)?"),
    fails("C13 y holds a string", OUTPUT, run(lambda p, c, x: (c, {"name": "abc"})),
          "returned `y['name']` = 'abc' (str), which is neither an array nor a number"),
    fails("C13 y is an array of strings", OUTPUT, run(lambda p, c, x: (c, np.array(["a"]))),
          "returned `y` = array(['a']...neither an array nor a number"),
    fails("C13 carry holds a string", OUTPUT, run(lambda p, c, x: ("a", x)),
          "returned `carry` = 'a' (str)"),
    fails("C13 a string is given as carry", TypeError, run(branches, {"h": "zeros"}),
          "`carry['h']` must be an array or a number, got 'zeros' (str)"),
    fails("C13 a setting in params", TypeError, run(branches, params={"activation": "tanh"}),
          "`params['activation']` must be an array or a number, got 'tanh' (str)"),
    fails("C14 if on the carry", jax.errors.TracerBoolConversionError, run(branches),
          "use `jnp.where` or `jax.lax.cond` for `if`...cell `branches`, which received x: float64[2,3], carry: "
          "float64[2,3]"),
    fails("C14 int of an input", jax.errors.ConcretizationTypeError, run(lambda p, c, x: (c, int(x)), xs=XS[:, 0, 0]),
          "traced, not known"),
    fails("C14 NumPy function", jax.errors.TracerArrayConversionError, run(lambda p, c, x: (np.tanh(c), x)),
          "`jnp.tanh` for `np.tanh`"),
    fails("C14 list index", jax.errors.TracerIntegerConversionError,
          run(lambda p, c, x: (c, [0.1, 0.2][x]), xs=np.array([0, 1])),
          "`jnp.asarray(a_list)[i]` for `a_list[i]`"),
    fails("C14 boolean index", jax.errors.NonConcreteBooleanIndexError, run(lambda p, c, x: (c, x[x > 0])),
          "`jnp.where` for `x[x > 0]`"),
    fails("C18 missing param", KeyError, run(lambda p, c, x: (c * p["w"], x), params={"U": 1.0, "b": 2.0}),
          "cell `<lambda>` read the key 'w'; params has keys ['U', 'b']"),
    fails("C18 missing param, one level down", KeyError,
          run(lambda p, c, x: (c * p["cell"]["w"], x), params={"cell": {"U": 1.0}}),
          "read the key 'w'; params has keys ['cell'], params['cell'] has keys ['U']"),
    fails("C18 missing part of the carry", KeyError, run(lambda p, c, x: (c["hidden"], x), {"h": H}),
          "read the key 'hidden'; carry has keys ['h']"),
    fails("C18 library cell, params None", TypeError, lambda: rs.scan(ELMAN, None, None, XS),
          "`params` is None...a library cell makes them with `cell.init(key)`"),
    fails("C19 params of wrong shape", TypeError,
          run(lambda p, c, x: (c, x @ p["W_in"]), params={"W_in": np.ones((7, 4))}),
          "cell `<lambda>`, which received x: float64[2,3], carry: float64[2,3], params['W_in']: float64[7,4]"),
    fails("C19 params of another library cell", rs.ParamsError,
          lambda: rs.scan(ELMAN, LSTM.init(jax.random.key(0), jnp.float64), None, XS),
          "`params['b']` has shape (16,); `init` of cell `Elman(...makes it (4,)"),
    fails("C19 gates from a cell with one", rs.ParamsError,
          lambda: rs.scan(LSTM, ELMAN.init(jax.random.key(0), jnp.float64), None, XS),
          "`params['b']` has shape (4,); `init` of cell `LSTM(...makes it (16,). Are these another cell's params?"),
    fails("params that would be ignored", rs.ParamsError,
          lambda: rs.scan(ELMAN, {**ELMAN.init(jax.random.key(0), jnp.float64), "b_h": np.ones(4)}, None, XS),
          "`params['b_h']` is none of the params of cell `Elman(...and would be ignored"),
    fails("params that are missing", rs.ParamsError, lambda: rs.scan(ELMAN, {"w_x": np.ones((3, 4))}, None, XS),
          "`params['b']` is missing; `init` of cell `Elman(...makes it (4,)"),
    fails("C call: two arguments", TypeError, run(lambda c, x: (c, x)),
          "calls a cell as `cell(params, carry, x)`"),
    fails("C call: a class", TypeError, lambda: rs.scan(rs.cells.LSTM, {}, None, XS),
          "got the class `LSTM`. Write `LSTM(...)`"),
    fails("C call: params first", TypeError, lambda: rs.scan(PARAMS, ELMAN),
          "needs a cell...as its first argument; got a dict"),
    fails("C call: x is None", TypeError, run(lambda p, c, x: (c + x, x), xs=None, n_steps=3),
          "`x` is None. With `xs=None` every step gets None"),
    fails("C call: carry is None", TypeError, run(lambda p, c, x: (c + x, x), None),
          "`carry` is None. A function without `initial_carry` starts without a carry"),
    fails("C20 NaN carry at the start", rs.NonFiniteError,
          run(lambda p, c, x: (c, x), {"h": H * np.nan}, debug=True),
          "`carry['h']` is nan... before the first step"),
    fails("N1 first bad step", rs.NonFiniteError,
          run(lambda p, c, x: ({"h": c["h"] / x}, None), {"h": H + 1}, ZERO_AT_2, lengths=[5, 5], debug=True),
          "`carry['h']` is inf at step 2, row 1 ...the input and the carry of that step were finite"),
]  # fmt: skip


@pytest.mark.parametrize("error, pattern, call", CELLS)
def test_cells_and_carries(error, pattern, call):
    refused(error, pattern, call)
