"""What a run stands on: command line and config, devices, checkpoints, log and pictures."""
