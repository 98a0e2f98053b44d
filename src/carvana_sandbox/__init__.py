"""A mock server of Kaggle and a made-up competition of rendered cars."""
