"""From an experiment's folder to records: NNI's database, logs and trials' files, read without NNI.

`locate` finds experiments, `database` reads NNI's tables beside a running NNI, `replay` makes trials of its events, and `reader`
puts all into `records`. `startup` says how many trials a tuner samples at random, `tables` makes DataFrames, `logs` says why a
trial ended, `provenance` where numbers come from, `replication` what a study or confirmation has trained.
"""
