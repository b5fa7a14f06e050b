"""Faceloom: raw footage of people into training data for portrait-animation video models."""

__version__ = "0.1.0"
