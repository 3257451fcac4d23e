"""From an experiment's folder to records: NNI's database, logs and trials' files, read without NNI.

`locate` finds experiments, `database` reads NNI's tables beside a running NNI, and `reader` makes `records` of them. `startup`
says how many trials a tuner samples at random, `logs` why a trial ended, `replication` what a study or confirmation has trained.
"""
