"""Rendered lines: glyph atlas, texts, looks, renderer, streams."""
