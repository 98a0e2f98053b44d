"""A run as a model that other programs open; the graph a cut-out keeps."""
