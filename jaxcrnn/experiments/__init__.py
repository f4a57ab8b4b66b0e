"""Comparisons of losses over seeds: plan, runs, results, intervals."""
