"""Slices of TPUs: what they cost, how they are had, run on and given back. Needs the standard library alone."""

import sys

# Older ones stumble over what the modules below are written in, in a page of their own words.
if sys.version_info < (3, 11):  # noqa: UP036  # a laptop may have an older one
    raise SystemExit("error: this needs Python 3.11 or newer, and is run by %d.%d" % sys.version_info[:2])  # noqa: UP031
