"""Keywords of other libraries' loops are answered with ours, which exist."""

import inspect
import re

import pytest

import rnnscan as rs
from rnnscan._foreign import FOREIGN, refuse


OURS = list(inspect.signature(rs.scan).parameters)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "time_major",
            "has no option `time_major`, which is TensorFlow's and Keras'; write `time_axis=1` where the batch",
        ),
        (
            "batch_first",
            "which is torch's; write `time_axis=1` where the batch comes first; time comes first by default",
        ),
        ("sequence_length", "write `lengths=`, one number of valid steps"),
        ("seq_lengths", "which is Flax's; write `lengths=`"),
        ("go_backwards", "write `reverse=True`, .*; ys stay in input order, where the original turns them round"),
        ("keep_order", "write nothing: with `reverse=True` ys stay in input order"),
        ("return_sequences", 'write `outputs="all"` for True.*`outputs="last"` for False'),
        ("length", r"`lax.scan`'s; write `n_steps=`\."),
        ("init", r"`lax.scan`'s; write `carry=`, the third argument\."),
        ("lenghts", r"^`scan` got an unexpected keyword argument `lenghts`. Did you mean `lengths`\?$"),
        ("zzz", r"unexpected keyword argument `zzz`. It takes `cell`, `params`, .*`debug`\.$"),
    ],
)
def test_a_foreign_keyword_is_answered_with_ours(name, message):
    with pytest.raises(TypeError, match=message):
        refuse("scan", name, OURS)


def test_what_the_table_says_to_write_exists():
    for name, (_, instead) in FOREIGN.items():
        assert name not in OURS
        for option in re.findall(r"`(\w+)=", instead):
            assert option in OURS or option == "until", name
        for path in re.findall(r"`rs\.([\w.]+)", instead):
            thing = rs
            for part in path.split("."):
                thing = getattr(thing, part)
            assert callable(thing), name


@pytest.mark.parametrize(
    "call",
    [
        lambda **wrong: rs.scan(len, None, None, [1.0], **wrong),
        lambda **wrong: rs.scan_until(len, None, None, [1.0], until=len, **wrong),
        lambda **wrong: rs.scan_chunks(len, None, None, [], **wrong),
        lambda **wrong: rs.train.tbptt(len, None, None, [1.0], k1=1, k2=1, **wrong),
        lambda **wrong: rs.bidirectional(len, len, (None, None), None, [1.0], **wrong),
    ],
    ids=["scan", "scan_until", "scan_chunks", "tbptt", "bidirectional"],
)
def test_scan_and_its_relatives_answer_so(call):
    with pytest.raises(TypeError, match="has no option `time_major`, which is TensorFlow's and Keras'; write `time_a"):
        call(time_major=True)
