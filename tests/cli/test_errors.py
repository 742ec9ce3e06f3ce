"""How every program ends when it cannot do what it was asked."""

import sys

import pytest

from hiersplat.cache import CacheError
from hiersplat.cli.errors import run_cli


def end_of(monkeypatch, error: BaseException) -> object:
    """Exit status of a program that meets an error."""

    def program() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        run_cli(program)
    return ended.value.code


@pytest.mark.parametrize(
    "error",
    [ValueError("a.png:\n  spoiled"), OSError("a.png: spoiled"), CacheError("a.png: spoiled")],
)
def test_what_a_user_can_mend_becomes_one_line(monkeypatch, capsys, error):
    assert end_of(monkeypatch, error) == 2
    assert capsys.readouterr().err == "error: a.png: spoiled\n"


def test_an_error_without_words_is_named(monkeypatch, capsys):
    assert end_of(monkeypatch, ValueError()) == 2
    assert capsys.readouterr().err == "error: ValueError\n"


def test_an_interruption_is_one_line_and_no_success(monkeypatch, capsys):
    assert end_of(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_our_own_bugs_keep_their_traceback(monkeypatch):
    def program() -> None:
        raise KeyError("bug")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(KeyError, match="bug"):
        run_cli(program)
