"""Data sets and the latent cache."""
