"""Losses, mining, schedule, the training loop and its checkpoints."""
