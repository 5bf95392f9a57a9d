"""The suite's own networks: how they are trained, and how good they are."""
