"""Launchers and sweepers of immunax, where Hydra looks for them; what they do stands in ``immunax.runtime.sweeps``.

Hydra imports these modules at the start of every program that uses it, so that they import next to nothing themselves.
"""
