"""Fused attention: kernels that never write the scores, and one way to differentiate any of them any number of times."""
