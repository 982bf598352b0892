"""Integrators of ordinary differential equations as cells."""

from .tableau import Tableau as Tableau
from .stepper import RungeKutta as RungeKutta
from .stepper import Euler as Euler
from .stepper import Midpoint as Midpoint
from .stepper import Heun as Heun
from .stepper import RK4 as RK4
