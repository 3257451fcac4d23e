"""The one error that the data commands show a person: a line, no traceback."""


class DataError(Exception):
    """Names what was found, what was expected and the next command."""
