"""Layers: backbones, bidirectional LSTM, masked batch normalization."""
