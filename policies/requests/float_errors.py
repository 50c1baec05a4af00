"""How far the floats by which a silo computes a measure may be from the exact values of its range.

Pure. A value v is computed as one within `absolute + relative * |v|` of v. Source: the standard model of floating-point
arithmetic (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 2.2), for doubles that are rounded to
nearest. What a function that jumps does to a value beside its jump is no error here: such a function is a cut.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_ROUNDING = 2.0**-53 * (1 + 2.0**-10)  # of one operation; more than a half bit, for the products of small errors
_FUNCTION = 8 * _ROUNDING  # of a logarithm or an exponential in any library
_SMALL, _LARGE = 2.0**-20, 1e15
_KEPT = _ROUNDING  # an end of a range, to which a silo keeps a value, as a float
_WHOLE = 2**53  # a float holds all whole numbers up to it


@dataclass(frozen=True, slots=True)
class FloatError:
    """The most by which a float differs from the exact value: in units of the value, and as a part of it."""

    absolute: float = 0.0
    relative: float = 0.0

    @property
    def is_small(self) -> bool:
        """Whether the bounds of errors here hold: they leave out squares of relative errors."""
        return self.relative <= _SMALL and self.absolute <= _LARGE  # not so of what is no number

    def at(self, most: Fraction) -> float:
        """Return the most by which a value of this magnitude is off."""
        return self.absolute + self.relative * float(most)


EXACT = FloatError()


def of_steps(step: Fraction, most: Fraction) -> FloatError:
    """Return the error of a whole number of steps: a product and a quotient."""
    return EXACT if step.denominator == 1 and most <= _WHOLE else FloatError(0.0, 2 * _ROUNDING)


def of_units(unit: Fraction, most: Fraction) -> FloatError:
    """Return the error of what has just been rounded to units."""
    return EXACT if unit.denominator == 1 and most <= _WHOLE else FloatError(0.0, 4 * _ROUNDING)


def snapped(error: FloatError, grid: Fraction, most: Fraction) -> FloatError:
    """Return the error of values that a silo rounds to their own grid."""
    is_sure = error.at(most) <= float(grid) / 4
    return FloatError(error.absolute + (0.0 if is_sure else float(grid) / 2), error.relative + 12 * _ROUNDING)


def of_number(value: Fraction) -> FloatError:
    """Return the error of a number that is written in decimals."""
    return EXACT if Fraction(float(value)) == value else FloatError(0.0, _ROUNDING)


def largest(errors: Sequence[FloatError]) -> FloatError:
    """Return the error of what is one of several values."""
    return FloatError(max(one.absolute for one in errors), max(one.relative for one in errors))


def of_sum(errors: Sequence[FloatError], mosts: Sequence[Fraction], has_one_sign: bool) -> FloatError:
    """Return the error of a sum from left to right, of values up to these magnitudes.

    Where signs differ, what is left may be far smaller than what was rounded.
    """
    rounded = (len(errors) - 1) * _ROUNDING
    if has_one_sign:
        absolute = sum(one.absolute for one in errors)
        return FloatError(absolute * (1 + rounded), max(one.relative for one in errors) + rounded)
    absolute = sum(one.at(most) for one, most in zip(errors, mosts, strict=True))
    return FloatError(absolute + rounded * (float(sum(mosts)) + absolute))


def of_product(errors: Sequence[FloatError], mosts: Sequence[Fraction]) -> FloatError:
    """Return the error of a product of two values up to these magnitudes."""
    (one, other), (most, other_most) = errors, mosts
    relative = one.relative + other.relative + _ROUNDING
    absolute = one.absolute * (float(other_most) + other.at(other_most)) + other.absolute * float(most)
    return FloatError(absolute * (1 + relative), relative)


def has_no_error(errors: Sequence[FloatError], are_whole: bool, reached: Fraction) -> bool:
    """Say whether sums or products up to a magnitude are exact, as of whole numbers that a float holds."""
    return are_whole and reached <= _WHOLE and all(one == EXACT for one in errors)


def of_quotient(above: FloatError, below: FloatError, most: Fraction, least: Fraction) -> FloatError:
    """Return the error of a quotient up to a magnitude, by a divisor that is kept at least so far from 0."""
    part = below.absolute / float(least)
    relative = above.relative + below.relative + _ROUNDING + 2 * _KEPT
    absolute = above.absolute / float(least) + float(most) * part
    return FloatError(absolute * (1 + 2 * part), relative * (1 + 2 * part))


def of_root(error: FloatError, least: Fraction) -> FloatError:
    """Return the error of a root of values that are kept at or above a number."""
    absolute = math.sqrt(error.absolute)
    if least > 0:
        absolute = min(absolute, error.absolute / math.sqrt(float(least)))
    return FloatError(absolute, error.relative + _ROUNDING + _KEPT)


def of_logarithm(error: FloatError, least: Fraction, factor: float) -> FloatError:
    """Return the error of a logarithm of values that are kept at or above a number: `factor` times the natural one."""
    part = error.absolute / float(least)
    return FloatError(factor * (part + (error.relative + _KEPT) * (1 + 2 * part)), _FUNCTION)


def of_exponential(error: FloatError, most: Fraction) -> FloatError:
    """Return the error of an exponential of values up to a magnitude; infinite where it is far too large."""
    inner = error.at(most) + _KEPT * float(most)
    return FloatError(0.0, math.expm1(inner) + _FUNCTION if inner < 1 else math.inf)
