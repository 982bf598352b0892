"""Butcher tables of explicit Runge-Kutta methods, as data."""

import math
from dataclasses import dataclass

from .._types import settle


@dataclass(frozen=True)
class Tableau:
    r"""An explicit method with `s` stages for `dy/dt = f(t, y)`:

        k_i = f(t + c_i dt, y + dt sum_{j<i} a_ij k_j)   for i = 1 ... s,        y(t + dt) = y + dt sum_i b_i k_i

    `a` has one row a stage, row i with its i - 1 entries left of the diagonal; `b` and `c` have `s` entries; `order`
    is the power of `dt` in the error after a fixed time. Raises ValueError if a row of `a` has another length (the
    method would be implicit), if a row does not sum to its `c`, or `b` not to 1.
    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), section II.1.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        settle(self, a=lambda rows: tuple(tuple(map(float, row)) for row in rows), b=_floats, c=_floats)
        stages = len(self.b)
        if len(self.a) != stages or len(self.c) != stages:
            raise ValueError(
                f"table `{self.name}` needs one row of a and one entry of b and c a stage; got {len(self.a)} rows, "
                f"{stages} and {len(self.c)} entries."
            )
        for i, (row, c) in enumerate(zip(self.a, self.c, strict=True)):
            if len(row) != i:
                raise ValueError(
                    f"table `{self.name}` has to be explicit: row {i} of a holds the {i} entries left of the "
                    f"diagonal; got {len(row)}."
                )
            if not math.isclose(math.fsum(row), c, abs_tol=1e-12):
                raise ValueError(f"table `{self.name}`: row {i} of a sums to {math.fsum(row)}, but c[{i}] is {c}.")
        if not math.isclose(math.fsum(self.b), 1, abs_tol=1e-12):
            raise ValueError(f"table `{self.name}`: b sums to {math.fsum(self.b)}, not to 1.")


def _floats(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(float, values))


EULER = Tableau("Euler", a=((),), b=(1,), c=(0,), order=1)
MIDPOINT = Tableau("Midpoint", a=((), (1 / 2,)), b=(0, 1), c=(0, 1 / 2), order=2)
HEUN = Tableau("Heun", a=((), (1,)), b=(1 / 2, 1 / 2), c=(0, 1), order=2)
RK4 = Tableau(
    "RK4",
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0, 1 / 2, 1 / 2, 1),
    order=4,
)
