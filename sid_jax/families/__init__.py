"""From the bytes of a source to a teacher: one module for each family of models."""
