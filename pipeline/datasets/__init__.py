"""Data sets: sources, archives, decoding, splits and packs."""
