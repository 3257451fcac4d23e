"""A study, a grid times seeds: its plan on disk, the numbers of its arms, the sentences, the page."""
