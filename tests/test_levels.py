import pytest

from hiersplat.levels import Level


def test_levels_are_ordered_fine_to_coarse():
    assert [level.title for level in Level] == ["small", "part", "whole"]
    assert Level.SMALL.coarser is Level.PART
    assert Level.WHOLE.coarser is None
    assert Level.WHOLE.finer is Level.PART
    assert Level.SMALL.finer is None


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match="unknown level 'middle'; expected one of small"):
        Level.parse("middle")
