"""Cells, sites and the door to data engines."""
