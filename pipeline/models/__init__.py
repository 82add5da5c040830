"""Networks: backbones, embedders, weights, export."""


class WeightsError(ValueError):
    """A file of weights that cannot be read, or is not the backbone's."""
