"""Decoding and evaluation: beam search, lexicons, n-grams, evaluation and recognition over data."""
