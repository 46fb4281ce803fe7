"""The one exception for what a user can put right."""

_LONGEST = 2000  # characters of a message: a list of all modules has 900


class InputError(ValueError):
    """Bad input: a file, a row, a label or an option that does not fit.

    The message is one line that says what was wrong, where (file, row, label) and what would be right.
    Scripts print it and exit with status 2; it never carries a traceback to the user.

    What it quotes may be anybody's: line breaks and control characters in it are written as escapes, and the middle of
    what is too long is left out.
    """

    def __str__(self) -> str:
        return shown(super().__str__())


def shown(text: str) -> str:
    """Anybody's text as part of one line on a screen."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST * 2 // 3]} … {text[-_LONGEST // 3 :]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
