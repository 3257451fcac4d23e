"""The one error that the experiment commands show a person: a line, no traceback."""


class ExperimentError(Exception):
    """Names what was found, what was expected and the next command."""
