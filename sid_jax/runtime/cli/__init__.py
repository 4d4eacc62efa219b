"""The command line and config files."""
