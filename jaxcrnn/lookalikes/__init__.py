"""Characters that look alike: groups, glyph similarity, confusions."""
