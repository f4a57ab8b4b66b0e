"""How far two implementations may be apart, by what is compared; each with the reason for its size.

Use one as ``np.testing.assert_allclose(a, b, **STEP)`` or ``chex.assert_trees_all_close(a, b, **STEP)``.
"""

# float32 has 24 bits, 6e-8: sums over some hundred terms in another order differ by some ten of them.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
# A whole step, or ten of them, on one device and on eight: forward, backward and optimizer, each sum in another order.
STEP = FLOAT32
# Centers move by small shares of differences, so that less rounding gathers in them than in parameters.
CENTERS = {"rtol": 1e-6, "atol": 1e-6}
# What is watched includes norms of differences, which lose a bit against the features.
WATCH = {"rtol": 2e-5, "atol": 2e-5}
# A gradient through exponentials is larger than what it was made from, and so is its rounding.
GRADIENT = {"rtol": 1e-4, "atol": 1e-5}
# A recurrent layer by another library, whose products are summed in other blocks.
LSTM = {"rtol": 1e-4, "atol": 1e-4}
# Two formulas for the same gradient in float64, which has 53 bits, 1.1e-16, through exponentials.
FLOAT64_GRADIENT = {"rtol": 1e-10, "atol": 1e-12}

# Of the largest entry of an array, by which parity is measured:
PARITY_FLOAT64 = 1e-11  # one step or less in float64, both frameworks with the same formulas
PARITY_FLOAT64_STEPS = 1e-9  # Adam, which divides by the gradient's own size, and ten steps, which carry rounding on
GOLDEN_FLOAT64 = 1e-6  # recorded in float32 by the original programs
GOLDEN_FLOAT32 = 2e-5  # and computed in float32 here as well
# Recorded in float32 from losses near 97, whose logarithms carry 2.8e-5: jaxcrnn and torch_ref in float64 agree to
# 1e-14 with each other and differ from the recording by that much alike.
GOLDEN_CTC_GRADIENT = 3e-5
