"""The networks, a module each, and what builds and loads them."""

ENCODER = "encoder"  # the model that is pretrained and frozen: not among a run's own weights
HEAD = "head"  # the convolution that gives logits: trained by Adam, fresh where classes change
