"""Comparisons of losses over several seeds: plan, runs, results and confidence intervals."""
