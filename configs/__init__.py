"""Presets: only what differs from the defaults of the dataclasses."""
