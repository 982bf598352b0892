"""The errors rnnscan raises; each is also the builtin error that a caller would expect."""


class CarryError(TypeError):
    """The carry a cell returns differs from the carry it was given, in structure, shape or dtype."""


class CellOutputError(TypeError):
    """A cell returned something else than `(carry, y)`, or a `y` that cannot be an array."""


class PurityError(ValueError):
    """Two traces of one cell differ, or a traced value left the cell."""


class SequenceError(ValueError):
    """Sequences, masks or numbers of steps do not fit together."""


class LengthError(ValueError):
    """`lengths` has the wrong shape, or a value outside [0, T]."""


class TapError(SequenceError):
    """A tap, a step relative to the present one, lies outside the sequence or outside the initial rows."""


class ParamsError(ValueError):
    """Parameters do not fit the cell or the optimiser."""


class NonFiniteError(RuntimeError):
    """A NaN or an infinity was met where `debug=True` or a training loop looked for one."""


class DataFileError(ValueError):
    """A data file is missing, damaged or not what its name says."""
