"""A search page that needs no server: network, index and pictures as static files."""
