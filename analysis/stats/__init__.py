"""The statistics of experiments and of their differences, and the verdict in words."""
