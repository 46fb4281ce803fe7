"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Bad input: a file, a row, a label or an option that does not fit.

    The message is one line that says what was wrong, where (file, row, label) and what would be right.
    Scripts print it and exit with status 2; it never carries a traceback to the user.
    """
