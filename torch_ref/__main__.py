"""Answer a parity task with this reference: ``python -m torch_ref TASK.npz ANSWER.npz``."""

import sys

import numpy as np

from torch_ref.answers import answer

if __name__ == "__main__":
    with np.load(sys.argv[1]) as task:
        np.savez(sys.argv[2], **answer(dict(task)))
