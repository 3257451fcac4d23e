"""Start, watch and check NNI experiments. Names the trial by its command line only."""
