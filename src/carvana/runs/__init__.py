"""A run: one training's folder, its weights, and the trained model in it."""
