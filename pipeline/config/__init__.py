"""What params.yaml may hold, its faults in words, and the studies that can be selected."""

LIBRARY_WEIGHTS = ("random", "pretrained", "package")  # others: a file's, the teacher's
