"""Embeddings, exact ranking, indexes, and what a query costs."""
