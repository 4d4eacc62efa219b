"""Image-text pairs by where they come from."""
