"""Wrappers: cells -> cell."""

from .stack import Stack as Stack
from .residual import Residual as Residual
from .project import Project as Project
from .dropout import Dropout as Dropout
from .deterministic import deterministic as deterministic
