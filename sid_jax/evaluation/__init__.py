"""What is measured, on what, and the table."""
