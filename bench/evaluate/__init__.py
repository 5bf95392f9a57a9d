"""Sampling trained runs and scoring what they draw."""
