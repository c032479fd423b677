"""Slices of TPUs: what they cost, how they are had, run on and given back. Needs the standard library alone."""
