"""Property tests of this room: no wall-time limits, since the cores are few and shared."""

from hypothesis import settings

settings.register_profile("segmentation", deadline=None, max_examples=50)
settings.load_profile("segmentation")
