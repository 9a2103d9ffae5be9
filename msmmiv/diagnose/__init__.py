"""Diagnostics of identification; each returns a frozen report that prints itself."""
