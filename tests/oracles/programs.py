"""Random programs, run in rnnscan and in the original: how many, from which seed, and how the count is printed.

    @differential(strategy, full=1000)
    def test_scan_equals_the_original(program): ...

becomes `SHARDS` tests, one after another or in parallel processes. Each draws its part of the programs from the seed
of the run (`--programs-seed`): a tenth of `full`, or all of them with `--programs=full`. The summary at the end of the
run prints how many programs each test has tried.
"""

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis.strategies import SearchStrategy


SHARDS = 4


def differential(strategy: SearchStrategy[Any], full: int) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Turns `check(program)`, which asserts, into tests over `full` random programs of `strategy`, or a tenth."""

    def decorate(check: Callable[[Any], None]) -> Callable[..., None]:
        @pytest.mark.parametrize("shard", range(SHARDS))
        def test(shard: int, request: pytest.FixtureRequest) -> None:
            asked = full if request.config.getoption("programs") == "full" else math.ceil(full / 10)
            share = math.ceil(asked / SHARDS)
            seed = request.config.getoption("programs_seed")
            tried = 0

            @hypothesis.seed(seed * SHARDS + shard)
            @hypothesis.settings(
                max_examples=share,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                report_multiple_bugs=False,
            )
            @hypothesis.given(strategy)
            def run(program: Any) -> None:
                nonlocal tried
                check(program)
                tried += 1

            run()
            request.node.user_properties.append(("programs", (check.__name__, tried)))
            assert tried >= share, f"{tried} programs tried, {share} asked for: the strategy has no more"

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate
