"""Tables of options: which combinations a test tries where all of them are too many."""

import itertools
import random
from typing import Any


def combinations(row: dict[str, Any], strength: int) -> set[frozenset]:
    """The settings of every `strength` factors in a row, each a set of (factor, level)."""
    return set(map(frozenset, itertools.combinations(row.items(), strength)))


def all_combinations(factors: dict[str, tuple], strength: int) -> set[frozenset]:
    """What a table has to show: every level of every `strength` factors together."""
    return {
        frozenset(zip(names, levels, strict=True))
        for names in itertools.combinations(factors, strength)
        for levels in itertools.product(*(factors[name] for name in names))
    }


def covering_array(factors: dict[str, tuple], seed: int) -> list[dict[str, Any]]:
    """Few rows in which every two levels of every two factors stand together at least once (greedy, random)."""
    order, names, missing, rows = random.Random(seed), list(factors), all_combinations(factors, 2), []
    while missing:
        pairs = sorted(missing, key=lambda pair: sorted(map(str, pair)))
        row = dict(order.choice(pairs))
        for name in order.sample([n for n in names if n not in row], len(names) - 2):
            gain = lambda level: sum(frozenset({(name, level), pair}) in missing for pair in row.items())  # noqa: B023
            most = max(map(gain, factors[name]))
            row[name] = order.choice([level for level in factors[name] if gain(level) == most])
        missing -= combinations(row, 2)
        rows.append({name: row[name] for name in names})
    return rows


def relabelled(rows: list[dict[str, Any]], factors: dict[str, tuple], blocks: int, seed: int) -> list[list[dict]]:
    """`blocks` tables with the combinations of `rows`, in each of which the levels of each factor have changed places.

    Together they show far more than one of them: what three or more levels do together as well.
    """
    order, tables = random.Random(seed), []
    for _ in range(blocks):
        places = {
            name: dict(zip(levels, order.sample(levels, len(levels)), strict=True)) for name, levels in factors.items()
        }
        tables.append([{name: places[name][level] for name, level in row.items()} for row in rows])
    return tables


def shared_table(
    factors: dict[str, tuple], blocks: int, size: int, strength: int, seed: int, tries: int = 60
) -> list[list[dict[str, Any]]]:
    """`blocks` short tables of `size` rows that together show as many combinations as they can (greedy, random).

    In each block a factor's levels stand equally often, give or take one, so that a block of as many rows as a factor
    has levels shows them all.
    """
    order, missing, table = random.Random(seed), all_combinations(factors, strength), []

    def block() -> list[dict[str, Any]]:
        columns = {}
        for name, levels in factors.items():
            column = [level for _ in range(size) for level in order.sample(levels, len(levels))][:size]
            columns[name] = order.sample(column, size)
        return [{name: columns[name][i] for name in factors} for i in range(size)]

    def shown(rows: list[dict[str, Any]]) -> set[frozenset]:
        return set().union(*(combinations(row, strength) for row in rows))

    for _ in range(blocks):
        candidates = [block() for _ in range(tries)]
        table.append(max(candidates, key=lambda rows: len(missing & shown(rows))))
        missing -= shown(table[-1])
    return table
