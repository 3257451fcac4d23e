"""From an experiment's folder to records: NNI's database, logs and trials' files, read without NNI."""
