"""A reference of CRNN with center loss in plain eager PyTorch: written to be read, not to be fast.

It says in loops over samples, frames and characters what `jaxcrnn` says in arrays, with the same names and argument
order, in whatever precision its inputs have (float64 to verify). It imports torch and numpy only.

Axes: B samples, T frames, L label slots, C classes with the blank, D features.
"""

from torch_ref import assign, centers, ctc, losses, model, train

__all__ = ["assign", "centers", "ctc", "losses", "model", "train"]
