"""Gaussians: what they are, how they are rendered on any device, and how 2D is lifted onto them."""
