"""What may be said of experiments and of their difference: the statistics, and the verdict in words."""
