"""The public names are there, and each says what it does and what every argument means."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rnnscan as rs
from rnnscan import _errors


ROOT = Path(__file__).resolve().parent.parent

NAMES = """
    scan scan_until ScanUntil explain Plan scan_chunks Chunk scan_taps bidirectional cell Rng
    last_valid flip_valid pack unpack
    CarryError CellOutputError PurityError SequenceError LengthError TapError ParamsError NonFiniteError DataFileError
    cells.Linear cells.Elman cells.LSTM cells.GRU
    wrap.Stack wrap.Residual wrap.Project wrap.Dropout wrap.deterministic
    ode.Euler ode.Midpoint ode.Heun ode.RK4
    train.fit train.Fit train.make_step train.masked_mean train.masked_cross_entropy train.masked_squared_error
    train.tbptt train.pad train.bucket train.batches
    compat.theano.scan compat.theano.map compat.theano.reduce compat.theano.foldl compat.theano.foldr
    compat.theano.until compat.keras.rnn compat.tensorflow.static_rnn compat.tensorflow.dynamic_rnn
    compat.tensorflow.bidirectional_dynamic_rnn compat.tensorflow.raw_rnn compat.tensorflow.rnn_cell
    diagnose plot data.mnist data.digits data.idx testing.check_cell
""".split()
"""What programs outside this repository rely on; there may be more."""

CELLS = [name for name in NAMES if name.startswith(("cells.", "wrap.", "ode."))]


def look_up(name):
    found = rs
    for part in name.split("."):
        found = getattr(found, part)
    return found


def public_members():
    """`{name: object}` for every public function and class that `rs` and its public modules offer."""
    found, modules = {}, [("rs", rs)]
    while modules:
        prefix, module = modules.pop()
        offered = [*vars(module), *(["plot"] if module is rs else [])]  # rs.plot is loaded when first asked for
        for name in offered:
            thing = getattr(module, name)
            ours = getattr(thing, "__module__", getattr(thing, "__name__", None)) or ""
            if name.startswith("_") or not str(ours).startswith("rnnscan"):
                continue
            if isinstance(thing, ModuleType):
                if prefix == "rs":
                    modules.append((f"rs.{name}", thing))
            elif callable(thing) and not _is_import(module, thing):
                found[f"{prefix}.{name}"] = thing
    return found


def _is_import(module, thing):
    """True for what a module file took from another room for its own use; a package offers what it imports."""
    return not hasattr(module, "__path__") and thing.__module__ != module.__name__


MEMBERS = public_members()


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_name_is_there_and_documented(name):
    assert (inspect.getdoc(look_up(name)) or "").strip(), f"rs.{name} has no docstring"


@pytest.mark.parametrize("name", [name for name, value in vars(_errors).items() if isinstance(value, type)])
def test_every_error_is_public_and_a_builtin_error(name):
    error = getattr(rs, name)
    assert error is getattr(_errors, name)
    assert issubclass(error, TypeError | ValueError | RuntimeError)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_the_docstring_names_every_argument(name):
    """Of a function, or of a cell that users build; a class that only the library builds needs a docstring."""
    thing = MEMBERS[name]
    docs = (
        [vars(base).get("__doc__") or "" for base in thing.__mro__[:-1]] if isinstance(thing, type) else [thing.__doc__]
    )
    assert docs[0] and docs[0].strip(), f"{name} has no docstring"
    if isinstance(thing, type) and name.removeprefix("rs.") not in CELLS:
        return
    arguments = [p for p in inspect.signature(thing).parameters if p != "self"]
    missing = [p for p in arguments if not re.search(rf"(?<![A-Za-z0-9_]){p}(?![A-Za-z0-9_])", " ".join(docs))]
    assert not missing, f"the docstring of {name} does not mention {missing}"


def test_plot_without_matplotlib_says_what_to_install():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import rnnscan as rs\n"
        "try:\n    rs.plot\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'rnnscan[plot]'" in done.stdout


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rs.no_such_name
