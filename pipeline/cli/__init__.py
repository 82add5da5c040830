"""The command `l2s`."""
