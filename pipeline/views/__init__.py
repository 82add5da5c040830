"""What a network sees of an image: evaluation views and coupled views."""
