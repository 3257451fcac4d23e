"""What leaves an experiment, for other tools and other people: `tables`, an `optuna` study, a small `recording`."""
