"""The parts of ``benchmarks/accelerator.py``: what its cases are, how each is measured, and how their figures are kept and shown.

``shapes``, ``catalogue``, ``goals``, ``record``, ``table`` and ``launch`` need no package, so that the command itself takes no
device and PyTorch's side can read them.
"""
