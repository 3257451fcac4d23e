"""The one error that a trial shows a person: a line, no traceback."""


class TrialError(Exception):
    """Names what was found, what was expected and the next command."""
