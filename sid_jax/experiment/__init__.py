"""What a config says, wired together: the only reader of a whole config."""
