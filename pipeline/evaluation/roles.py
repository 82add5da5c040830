"""What each role of a row is compared with: what one would do without the method."""

# The gain over the first that a study has is the one that tables show.
OPPONENTS = {
    "asymmetric": ("naive", "adapter", "baseline"),
    "symmetric": ("baseline", "asymmetric"),
    "adapter": ("naive",),
}
