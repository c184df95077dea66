"""Stored images to model input: window, channels, grid."""
