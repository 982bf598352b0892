"""Rewrites: a `Loop` in, a `Loop` out, one option of `scan` each."""

from .ahead import ahead as ahead
from .debug import Report as Report, debug as debug, report as report
from .masking import masking as masking, valid_steps as valid_steps
from .outputs import last_output as last_output, no_output as no_output
from .progress import progress as progress
from .resets import resets as resets
from .until import stop as stop
