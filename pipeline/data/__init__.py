"""Sources, packs, samplers and views of images."""
