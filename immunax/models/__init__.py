"""Decoders, their files, and what is computed with them."""

import os

# transformers serves for tokenizers and configurations here; that PyTorch is absent is no news.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
