"""Look-alike characters: groups, glyph similarity, mining and confusion scores."""
