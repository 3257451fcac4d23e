"""The statistics of experiments and of their differences, and the verdict in words.

`compare` groups repeats into arms and makes the content of summary.json: `two_sample` decides, `statement` words the verdict.
`paired` has the tests and intervals of studies and confirmations, `best_of_n` the selection bias and the expected best of k,
`importance` that of hyperparameters, `early_stopping` what stopping saved.
"""
