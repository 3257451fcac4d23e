"""What a person reads on a terminal: all experiments, one, its best trial, a comparison."""
