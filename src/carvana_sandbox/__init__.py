"""A local stand-in for Kaggle and a made-up competition of rendered cars."""
