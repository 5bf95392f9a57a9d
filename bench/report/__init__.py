"""Figures and the page. No torch."""
