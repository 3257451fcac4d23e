"""What leaves an experiment, for other tools and other people: tables, an Optuna study, a small copy."""
