"""Data sets, and their images as tokens."""
