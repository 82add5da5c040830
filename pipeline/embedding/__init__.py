"""Many images to vectors."""
