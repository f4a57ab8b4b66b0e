"""How often the intervals of a comparison hold the truth, on simulated arms (docs/does-it-help.md).

python scripts/interval_coverage.py
"""

import numpy as np

from jaxcrnn.experiments.bootstrap import difference

LINES, EXPERIMENTS, REPLICATES, GAIN = 300, 1000, 500, 0.04


def arm(rng: np.random.Generator, mean: float, hard: np.ndarray, seeds: int, spread: float) -> np.ndarray:
    """Which lines each seed's run reads: some lines are harder than others, some runs better."""
    wanted = mean + hard + rng.normal(size=(seeds, 1)) * spread
    return (rng.random((seeds, LINES)) < np.clip(wanted, 0, 1)).astype(float)


def main() -> None:
    for seeds, spread in ((3, 0.0), (3, 0.005), (3, 0.02), (3, 0.05), (3, 0.1), (2, 0.05), (5, 0.05), (1, 0.0)):
        rng, ones, covered, width = np.random.default_rng(1), np.ones((seeds, LINES)), 0, 0.0
        for experiment in range(EXPERIMENTS):
            hard = np.clip(rng.normal(size=LINES) * 0.1, -0.3, 0.3)  # so that hardly a probability is clipped
            one, two = (arm(rng, 0.5 + gain, hard, seeds, spread) for gain in (GAIN, 0.0))
            interval = difference(one, ones, two, ones, replicates=REPLICATES, seed=experiment)
            covered += interval.low <= GAIN <= interval.high
            width += interval.high - interval.low
        print(f"| {seeds} | {100 * spread:g} | {covered / EXPERIMENTS:.1%} | {100 * width / EXPERIMENTS:.1f} points |")


if __name__ == "__main__":
    main()
