"""One figure for each result of `rs.train` and `rs.diagnose`: every function draws on the axes given, or on new ones.

Nothing here shows a figure, or changes a style or a backend. Arrays may be JAX's or NumPy's.
"""

try:
    import matplotlib as _matplotlib
except ImportError as error:
    raise ImportError("`rnnscan.plot` draws with matplotlib; install it: pip install 'rnnscan[plot]'") from error

from ._training import learning_curve as learning_curve, loss_surface as loss_surface
from ._gradient import gradient_over_time as gradient_over_time
from ._time import ode_solution as ode_solution, series as series
from ._confusion import confusion as confusion
from ._plan import plan as plan
