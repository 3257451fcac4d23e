"""From photos on disk to a cache of uint8 arrays, made once. Imports nothing else of this project.

`source` lists a folder or one of the `archives`, `layouts` finds its splits and classes, `splits` decides which photos each
split of the cache gets, `decode` (with `formats`) makes squares of them, and `prepare` puts these into a `cache`, whose photos
`contents` knows by their bytes. `show` prints counts and draws a contact sheet; `sample` draws a generated Food-11.
"""


class DataError(Exception):
    """The one error that the data commands show a person, a line without traceback: what was found, what was expected, and
    the next command."""
