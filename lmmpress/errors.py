"""The one exception a person is meant to read."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one line; the command line prints it and exits with 2."""
