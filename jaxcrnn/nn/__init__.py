"""Layers: backbones, bidirectional LSTM, masked batch normalisation and linear head."""
