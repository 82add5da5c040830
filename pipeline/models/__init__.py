"""Networks: backbones, embedders, weights, export."""
