"""How good samples are: feature extractors, and distances between sets of features."""
