"""The sixteen-lane type of the kernels, against numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import njit

from hiersplat.gaussians import lanes

FLOATS = hnp.arrays(np.float32, 16, elements=st.floats(-1000, 1000, width=32))


@njit
def _powers(values, out):
    lanes.store(out, 0, lanes.exp2(lanes.load(values, 0)))


@njit
def _arithmetic(a, b, out):
    x, y = lanes.load(a, 0), lanes.load(b, 0)
    lanes.store(out, 0, lanes.choose((x < y) & (x >= np.float32(0.0)), x * y, x - y))
    lanes.store(out, 16, lanes.larger(x, y) + lanes.smaller(x, np.float32(1.0)))
    lanes.store(out, 32, lanes.round_down(x) + lanes.round_up(y))
    lanes.store(out, 48, lanes.square_root(lanes.magnitude(x)) / lanes.spread(np.float32(2.0)))
    return lanes.any_lane(x > y), lanes.total(x)


@njit
def _totals(values, out):
    v = values
    lanes.store(
        out,
        0,
        lanes.totals(
            lanes.load(v, 0), lanes.load(v, 16), lanes.load(v, 32), lanes.load(v, 48),
            lanes.load(v, 64), lanes.load(v, 80), lanes.load(v, 96), lanes.load(v, 112),
            lanes.load(v, 128), lanes.load(v, 144), lanes.load(v, 160), lanes.load(v, 176),
            lanes.load(v, 192), lanes.load(v, 208), lanes.load(v, 224), lanes.load(v, 240),
        ),
    )  # fmt: skip


@njit
def _bits(word):
    return lanes.lowest_bit(word), lanes.count_bits(word)


@njit
def _ticket(counter):
    return lanes.take_ticket(counter)


def test_powers_of_two_are_exact_to_rounding():
    for start in np.linspace(-119, 118, 2000):
        values = np.linspace(start, start + 1, 16, dtype=np.float32)
        out = np.empty(16, np.float32)
        _powers(values, out)
        np.testing.assert_allclose(out, np.exp2(values.astype(np.float64)), rtol=3e-7)


def test_powers_far_below_are_nothing_and_never_wild():
    values = np.array([-1e30, -np.inf, np.nan, -500] * 4, np.float32)
    out = np.empty(16, np.float32)
    _powers(values, out)
    assert (out >= 0).all()
    assert (out < 1e-35).all()


@settings(deadline=None)
@given(FLOATS, FLOATS)
def test_arithmetic_is_that_of_numpy(a, b):
    out = np.empty(64, np.float32)
    some, total = _arithmetic(a, b, out)
    np.testing.assert_allclose(out[:16], np.where((a < b) & (a >= 0), a * b, a - b), rtol=1e-6)
    np.testing.assert_allclose(out[16:32], np.maximum(a, b) + np.minimum(a, 1), rtol=1e-6)
    np.testing.assert_allclose(out[32:48], np.floor(a) + np.ceil(b), rtol=1e-6)
    np.testing.assert_allclose(out[48:], np.sqrt(np.abs(a)) / 2, rtol=1e-6)
    assert some == bool((a > b).any())
    np.testing.assert_allclose(total, a.astype(np.float64).sum(), atol=1e-2)


def test_sixteen_sums_come_in_order():
    values = np.random.default_rng(0).normal(size=256).astype(np.float32)
    out = np.empty(16, np.float32)
    _totals(values, out)
    np.testing.assert_allclose(out, values.reshape(16, 16).sum(1), rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 2**64 - 1))
def test_bits_of_a_word(word):
    lowest, count = _bits(np.uint64(word))
    assert lowest == (word & -word).bit_length() - 1
    assert count == word.bit_count()


def test_tickets_are_handed_out_once():
    counter = np.zeros(1, np.int64)
    assert [_ticket(counter) for _ in range(3)] == [0, 1, 2]
