"""The line at the bottom of a terminal."""

import io

import pytest
import rich

from experiments.run.console import say
from experiments.run.pinned import has_bars, pinned


@pytest.fixture
def terminal():
    before = dict(rich.get_console().__dict__)
    screen = io.StringIO()
    rich.reconfigure(file=screen, force_terminal=True, width=60)
    yield screen
    rich.get_console().__dict__ = before


def test_stays_below_what_is_printed_and_goes_at_the_end(terminal):
    minutes = iter(range(9, 0, -1))
    with pinned(lambda: f"[4/13] searching; about {next(minutes)} min left"):
        print("epoch 1 [of 2]")
        say("said [here]")
        assert not has_bars()
    assert has_bars()
    text = terminal.getvalue()
    for line in ("epoch 1 [of 2]", "said [here]"):
        below = text[text.index(line) + len(line) :]
        assert "[4/13] searching; about " in below
    # It is overwritten at last.
    assert text.rstrip("\n").endswith("\x1b[2K")


def test_is_cut_where_the_terminal_ends(terminal):
    with pinned(lambda: "x" * 100):
        pass
    assert "x" * 59 + "…" in terminal.getvalue()
    assert "x" * 60 not in terminal.getvalue()


def test_is_nothing_without_a_terminal(capsys):
    with pinned(lambda: "a line"):
        print("printed")
        assert not has_bars()
    assert capsys.readouterr().out == "printed\n"


def test_is_gone_after_an_error(terminal):
    with pytest.raises(KeyboardInterrupt), pinned(lambda: "a line"):
        raise KeyboardInterrupt
    assert has_bars()
