"""Errors whose message is for the person at the terminal."""


class UserError(Exception):
    """Wrong use or bad input. The message names the input and the remedy; the CLI prints it without a traceback and exits 2."""


class CheckFailed(Exception):
    """A check the user asked for did not pass (``verify``). The CLI prints the message and exits 1."""
