"""Databases of vectors, queries and champions."""
