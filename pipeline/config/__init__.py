"""What params.yaml may hold, its faults in words, and the studies that can be selected."""

LIBRARY_WEIGHTS = ("random", "pretrained")  # the other initial weights are those of a file
