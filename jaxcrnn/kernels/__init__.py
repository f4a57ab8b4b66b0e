"""Fast kernels: logits types, chunked head, CTC lattice, LSTM scan and CPU convolution."""
