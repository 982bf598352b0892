"""What a recurrence does to gradients, and what its loss looks like."""

from ._gradient import gradient_over_time as gradient_over_time, GradientOverTime as GradientOverTime
from ._surface import loss_surface as loss_surface, Surface as Surface
