"""MNIST as a dataset of image-text pairs, in the format of tensorflow_datasets."""
