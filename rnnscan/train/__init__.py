"""Training: `fit`, the step under it, losses that respect lengths, and batches."""

from ._fit import fit as fit, Fit as Fit
from ._tbptt import tbptt as tbptt
from .step import make_step as make_step, Step as Step
from .loss import (
    masked_mean as masked_mean,
    masked_cross_entropy as masked_cross_entropy,
    masked_squared_error as masked_squared_error,
)
from .batch import pad as pad, bucket as bucket, batches as batches, Batches as Batches
