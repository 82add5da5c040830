"""One thin script a DVC stage."""
