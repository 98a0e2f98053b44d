"""Reproduction kit for Kaggle's Carvana Image Masking Challenge."""
