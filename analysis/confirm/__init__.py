"""Retrains the best configurations and the default with fresh seeds: plan, trainings, result, page."""
