"""Reading data sets: decoders, lexicons, n-grams, evaluation."""
