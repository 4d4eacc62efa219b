"""How teachers are sampled."""
