"""A reference implementation of CRNN with center loss in plain eager PyTorch, written for clarity, not for speed.

It computes in loops over samples, frames and characters what `jaxcrnn` computes on arrays, with the same names and
order of arguments, in the precision of its inputs (float64 for verification). It imports only torch and numpy.

Axes: B samples, T frames, L label slots, C classes including the blank, D features.
"""

from torch_ref import assign, centers, ctc, losses, model, train

__all__ = ["assign", "centers", "ctc", "losses", "model", "train"]
