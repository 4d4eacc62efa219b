"""Whole files and folders, on a disk or in a bucket."""
