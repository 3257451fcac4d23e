"""The statistics of experiments and of their differences, and the verdict in words.

`compare` makes the content of summary.json: `arms` groups repeats, `two_sample` and `verdict` decide, `statement` words it.
`paired` has the tests and intervals of studies and confirmations, `best_of_n` the selection bias and the expected best of k,
`importance` that of hyperparameters, `early_stopping` what stopping saved.
"""
