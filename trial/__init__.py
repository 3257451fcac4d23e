"""One trial: fine-tune a network on the cache and report how well it does.

A person or NNI starts it through `__main__`, the only file that knows NNI. `run` trains one set of `hyperparameters`: it builds
the `model` (one of `networks`, its `weights` from a file, and a teacher), trains it (`train`, `state`, `batches`, `loss`), scores it (`evaluate`)
on a `device` (`gpu`), and writes `files`, `checkpoint` and `result`. `predict` and `export` are what
the trained network is for.
"""


class TrialError(Exception):
    """The one error that a trial shows a person, a line without traceback: what was found, what was expected, and the next
    command."""
