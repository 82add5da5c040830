"""Exact retrieval metrics, their intervals and costs."""
