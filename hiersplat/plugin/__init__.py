"""The nerfstudio method; the only package that imports nerfstudio."""
