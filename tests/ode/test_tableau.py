"""Butcher tables: the order conditions hold in exact arithmetic, and a wrong table is refused."""

from fractions import Fraction

import pytest

from rnnscan.ode import Tableau
from rnnscan.ode.tableau import EULER, HEUN, MIDPOINT, RK4


def sums(table):
    """`{order: [(sum, what it has to be)]}`, the conditions of Hairer, Norsett & Wanner I, section II.2, table 2.1."""
    exact = lambda values: [Fraction(value).limit_denominator(100) for value in values]
    n = len(table.b)
    a = [exact(row) + [Fraction(0)] * (n - len(row)) for row in table.a]
    b, c, r = exact(table.b), exact(table.c), range(n)
    return {
        1: [(sum(b), 1)],
        2: [(sum(b[i] * c[i] for i in r), Fraction(1, 2))],
        3: [
            (sum(b[i] * c[i] ** 2 for i in r), Fraction(1, 3)),
            (sum(b[i] * a[i][j] * c[j] for i in r for j in r), Fraction(1, 6)),
        ],
        4: [
            (sum(b[i] * c[i] ** 3 for i in r), Fraction(1, 4)),
            (sum(b[i] * c[i] * a[i][j] * c[j] for i in r for j in r), Fraction(1, 8)),
            (sum(b[i] * a[i][j] * c[j] ** 2 for i in r for j in r), Fraction(1, 12)),
            (sum(b[i] * a[i][j] * a[j][k] * c[k] for i in r for j in r for k in r), Fraction(1, 24)),
        ],
    }


@pytest.mark.parametrize("table", [EULER, MIDPOINT, HEUN, RK4], ids=lambda table: table.name)
def test_the_order_conditions_hold_up_to_the_order_and_not_beyond(table):
    for order, conditions in sums(table).items():
        if order <= table.order:
            assert all(got == want for got, want in conditions)
        elif order == table.order + 1:
            assert any(got != want for got, want in conditions)


def test_rows_become_tuples_of_floats():
    table = Tableau("Heun", a=[[], [1]], b=[1 / 2, 1 / 2], c=[0, 1], order=2)
    assert table == HEUN and hash(table) == hash(HEUN)


@pytest.mark.parametrize(
    ("a", "b", "c", "message"),
    [
        (((), (0.5,)), (0, 1), (0, 1), r"row 1 of a sums to 0.5, but c\[1\] is 1"),
        (((0.5,),), (1,), (0.5,), r"explicit: row 0 of a holds the 0 entries"),
        (((), (0.5, 0.5)), (0.5, 0.5), (0, 1), r"explicit: row 1 of a holds the 1 entries.*got 2"),
        (((),), (0.5, 0.5), (0, 1), r"got 1 rows, 2 and 2 entries"),
        (((), (1,)), (0.5, 0.4), (0, 1), r"b sums to 0.9, not to 1"),
    ],
)
def test_a_wrong_table_is_refused(a, b, c, message):
    with pytest.raises(ValueError, match=message):
        Tableau("mine", a, b, c, order=2)
