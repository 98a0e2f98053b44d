"""The names of those layers of a network that are not treated like the others."""

ENCODER = "encoder"  # pretrained and frozen: not trained, and not among a run's own weights
HEAD = "head"  # the convolution that gives logits: trained by Adam, fresh where classes change
