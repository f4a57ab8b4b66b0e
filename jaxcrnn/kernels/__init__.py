"""What makes the numerics fast: logits types, chunked head, LSTM scan, CPU convolution."""
