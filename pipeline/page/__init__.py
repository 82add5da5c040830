"""The search page: drop a picture, see what a network finds beside what the teacher finds."""
