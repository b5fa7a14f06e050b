"""Errors whose message is for the person at the terminal."""


class UserError(Exception):
    """Wrong use or bad input, and the message names both the input and the remedy.

    The command line prints it without a traceback and exits 2.
    """


class CheckFailed(Exception):
    """A check the user asked for did not pass (``verify``): the command line prints the message and exits 1."""
