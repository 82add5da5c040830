"""What params.yaml may hold, its faults in words, and the studies that can be selected."""
