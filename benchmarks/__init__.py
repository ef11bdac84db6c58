"""Runnable comparisons; each prints its ratios side by side in one run."""
