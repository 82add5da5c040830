"""Retrieval with small query images against a database of large ones."""
