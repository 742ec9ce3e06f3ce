"""Posed photographs to Gaussians that can be walked as a hierarchy: small, part, whole.

Importing this package is cheap on purpose: torch and the model libraries are
imported by the modules that need them.
"""
