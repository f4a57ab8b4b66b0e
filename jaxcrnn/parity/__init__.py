"""The ladder that compares every number with the PyTorch reference."""
