"""`report.html`: a run's curves, grids, table and settings as one file that loads nothing."""
