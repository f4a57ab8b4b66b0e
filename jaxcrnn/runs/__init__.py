"""Runs: configuration, run folder, checkpoints, trainer, compilation."""
