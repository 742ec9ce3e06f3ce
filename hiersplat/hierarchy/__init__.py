"""Masks of all views to one tree of the scene, measured against truth."""
