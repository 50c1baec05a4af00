"""Which values of a Reed-Solomon word are wrong, modulo a prime: whose share, or sum of a column, is none.

Berlekamp and Welch (US patent 4,633,470, 1986): with e wrong letters among 2e + quorum or more, there are polynomials E
(monic, of degree e) and Q (of degree below quorum + e) with Q(x) = y E(x) at every letter (x, y), and E is 0 at the
wrong letters. One elimination finds them, in time cubic in the number of letters.
"""

from collections.abc import Mapping
from functools import lru_cache


def wrong_places(word: Mapping[int, int], quorum: int, prime: int) -> tuple[int, ...] | None:
    """Return the places of the wrong letters of a word, by place (from 0, the letter is at place + 1).

    The right ones lie on one polynomial of degree below `quorum`. None if more than (letters - quorum) / 2 are wrong,
    or if there are fewer than `quorum`.
    """
    points = {place + 1: value for place, value in word.items()}
    if len(points) < quorum:
        return None
    if _on_one_polynomial(points, quorum, prime):
        return ()
    max_errors = (len(points) - quorum) // 2
    solution = _solved(
        [
            [
                *(pow(x, k, prime) for k in range(quorum + max_errors)),
                *(-y * pow(x, k, prime) % prime for k in range(max_errors)),
            ]
            for x, y in points.items()
        ],
        [y * pow(x, max_errors, prime) % prime for x, y in points.items()],
        prime,
    )
    if not max_errors or solution is None:
        return None
    locator = [*solution[quorum + max_errors :], 1]
    places = [x - 1 for x in points if not sum(c * pow(x, k, prime) for k, c in enumerate(locator)) % prime]
    rest = {x: y for x, y in points.items() if x - 1 not in places}
    found = 0 < len(places) <= max_errors and _on_one_polynomial(rest, quorum, prime)
    return tuple(places) if found else None


def value_at(points: Mapping[int, int], x: int, prime: int) -> int:
    """Return the value at x of the only polynomial of a degree below the number of points that goes through them."""
    chosen = tuple(sorted(points))
    return sum(w * points[at] for w, at in zip(lagrange(chosen, x, prime), chosen, strict=True)) % prime


@lru_cache(maxsize=4096)
def lagrange(points: tuple[int, ...], at: int, prime: int) -> tuple[int, ...]:
    """Return the weights, modulo a prime, with which the values at `points` give the value at `at`."""
    weights = []
    for i, xi in enumerate(points):
        numerator = denominator = 1
        for j, xj in enumerate(points):
            if i != j:
                numerator = numerator * (at - xj) % prime
                denominator = denominator * (xi - xj) % prime
        weights.append(numerator * pow(denominator, -1, prime) % prime)
    return tuple(weights)


def _on_one_polynomial(points: Mapping[int, int], quorum: int, prime: int) -> bool:
    chosen = {x: points[x] for x in sorted(points)[:quorum]}
    return all((value_at(chosen, x, prime) - y) % prime == 0 for x, y in points.items() if x not in chosen)


def _solved(rows: list[list[int]], right: list[int], prime: int) -> list[int] | None:
    """Return a solution of linear equations modulo a prime, with free unknowns 0; None if there is no solution."""
    table = [[*row, value] for row, value in zip(rows, right, strict=True)]
    unknowns, pivots, top = len(rows[0]), list[int](), 0
    for column in range(unknowns):
        found = next((at for at in range(top, len(table)) if table[at][column]), None)
        if found is None:
            continue
        table[top], table[found] = table[found], table[top]
        inverse = pow(table[top][column], -1, prime)
        table[top] = [value * inverse % prime for value in table[top]]
        for at, row in enumerate(table):
            if at != top and (factor := row[column]):
                table[at] = [(a - factor * b) % prime for a, b in zip(row, table[top], strict=True)]
        pivots.append(column)
        top += 1
    if any(row[-1] for row in table[top:]):
        return None
    solution = [0] * unknowns
    for at, column in enumerate(pivots):
        solution[column] = table[at][-1]
    return solution
