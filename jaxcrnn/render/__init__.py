"""Rendered lines: glyph atlas, texts, rendering parameters, renderer and streams."""
