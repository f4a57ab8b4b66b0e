"""Parity checks: every number compared with the PyTorch reference."""
