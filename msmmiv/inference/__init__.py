"""Covariances, tests and results."""
