"""Retrieval with small query images against a database of large ones."""

import os

# Fresh memory of large tensors costs a quarter in huge pages; torch reads this with its first one.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
