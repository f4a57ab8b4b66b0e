"""Fast kernels: logits types, dense and chunked head, CTC lattice, LSTM scan, CPU convolution and pooling."""
