"""Where arrays live, and which processes take part."""
