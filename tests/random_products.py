"""The products that random cells are made of: a value of the step and a matrix, in the many ways to write them.

Each takes values of shape `(rows, width)` that the step has and defines a new one.
"""

from tests.random_writer import ACTIVATIONS, Operation, product, registering


PRODUCTS: dict[str, Operation] = {}
"""Name -> what writes it."""
operation = registering(PRODUCTS)


@operation
def plain_product(w):
    product(w, w.pick(), w.size())


@operation
def weight_on_the_left(w):
    a, m = w.pick(), w.size()
    n = w.width[a]
    forms = (
        f"({w.matrix(m, n)} @ {a}.T).T",
        f"jax.lax.dot_general({w.matrix(m, n)}, {a}, (((1,), (1,)), ((), ()))).T",
        f"jax.vmap(lambda row: {w.matrix(m, n)} @ row)({a})",
    )
    w.define(w.choose(forms), m)


@operation
def einsum(w):
    a, m = w.pick(), w.size()
    n = w.width[a]
    forms = (
        lambda: f'jnp.einsum("bi,oi->bo", {a}, {w.matrix(m, n)})',
        lambda: f'jnp.einsum("io,bi->bo", {w.matrix(n, m)}, {a})',
        lambda: f'jnp.einsum("bi,ijk,bj->bk", {a}, {w.array(n, n, m)}, jnp.tanh({a}))',
        lambda: f'jnp.einsum("bi,ij,jk->bk", {a}, {w.matrix(n, 3)}, {w.matrix(3, m)})',
        lambda: f'jnp.einsum("bi,bo->b", {a}, {w.pick()})[:, None] * {w.array(m)}',
    )
    w.define(w.choose(forms)(), m)


@operation
def stacked_weights(w):
    a, m = w.pick(), w.size()
    stack, z = w.array(4, w.width[a], m), w.fresh("z")
    w.lines.append(f"{z} = " + w.choose((f"{a} @ {stack}", f'jnp.einsum("bi,gio->gbo", {a}, {stack})')))
    w.define(f"jax.nn.sigmoid({z}[0]) * jnp.tanh({z}[2]) + {z}[1] * {z}[3]", m)


@operation
def split_gates(w):
    a, m, z = w.pick(), w.size(), w.fresh("z")
    w.lines.append(f"{z} = {a} @ {w.matrix(w.width[a], 2 * m)}")
    parts = (
        (f"{z}[:, :{m}]", f"{z}[:, {m}:]"),
        tuple(f"jnp.split({z}, 2, axis=-1)[{i}]" for i in range(2)),
        tuple(f"{z}.reshape({w.rows}, 2, {m})[:, {i}]" for i in range(2)),
        (f"{z}[..., ::2]", f"jax.lax.slice_in_dim({z}, 0, {m}, axis=1)"),
    )
    gate, value = w.choose(parts)
    w.define(f"jax.nn.sigmoid({gate}) * {w.choose(ACTIVATIONS)}({value})", m)


def parts_and_width(w):
    parts = [w.pick() for _ in range(w.integer(2, 3))]
    return parts, sum(w.width[part] for part in parts)


@operation
def concat_product(w):
    parts, n = parts_and_width(w)
    m = w.size()
    forms = (
        lambda: f"jnp.concatenate([{', '.join(parts)}], axis=-1) @ {w.matrix(n, m)}",
        lambda: f"jnp.hstack([{', '.join(parts)}]) @ {w.matrix(n, m)} + {w.array(m)}",
        lambda: f"({w.matrix(m, n)} @ jnp.concatenate([{', '.join(f'{p}.T' for p in parts)}])).T",
        lambda: f"jnp.tanh(jnp.concatenate([{', '.join(parts)}], axis=1)) @ {w.matrix(n, m)}",
    )
    w.define(w.choose(forms)(), m)


@operation
def concat_of_weights(w):
    a, m = w.pick(), w.size()
    n = w.width[a]
    w.define(f"({a} @ jnp.concatenate([{w.matrix(n, m)}, {w.matrix(n, 2)}], axis=1))[:, 1:{m + 1}]", m)


@operation
def work_on_params_alone(w):
    a, m = w.pick(), w.size()
    n = w.width[a]
    forms = (
        lambda: f"{a} @ ({w.matrix(n, 3)} @ {w.matrix(3, m)})",
        lambda: f"{a} @ jax.nn.softmax({w.matrix(n, m)})",
        lambda: f"(lambda w: {a} @ (w / jnp.sqrt(1 + jnp.sum(w**2))))({w.matrix(n, m)})",
        lambda: f"{a} @ {w.matrix(n, m)} * jnp.exp(-{w.array(m)} ** 2)",
    )
    w.define(w.choose(forms)(), m)
