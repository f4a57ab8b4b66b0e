"""Weights in and out: layouts of other programs, importers, exporters, the recognizer."""
