"""`tf.contrib` as far as recurrences go: `tf.contrib.rnn`."""

from typing import Never as _Never

from . import rnn as rnn
from ..gone import attribute as _attribute


def __getattr__(name: str) -> _Never:
    _attribute("contrib", name)
