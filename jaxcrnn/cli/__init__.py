"""The command line."""

from jaxcrnn.cli.main import main

__all__ = ["main"]
