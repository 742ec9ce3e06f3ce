"""Declarative scenes: objects of parts of details, rendered with exact truth.

>>> from hiersplat.scene import load_scene, render_dataset  # doctest: +SKIP
>>> render_dataset(load_scene("scenes/tabletop.yaml"), "scenes/tabletop")  # doctest: +SKIP
"""

from hiersplat.scene.build import BuiltScene, build_scene
from hiersplat.scene.cameras import SceneCamera, look_at, scene_cameras
from hiersplat.scene.dataset import render_dataset, with_image_size
from hiersplat.scene.families import FAMILIES
from hiersplat.scene.random_scene import random_scene
from hiersplat.scene.render import RenderedView, SceneRenderer, render_view
from hiersplat.scene.spec import SceneSpec, load_scene

__all__ = [
    "FAMILIES",
    "BuiltScene",
    "RenderedView",
    "SceneCamera",
    "SceneRenderer",
    "SceneSpec",
    "build_scene",
    "load_scene",
    "look_at",
    "random_scene",
    "render_dataset",
    "render_view",
    "scene_cameras",
    "with_image_size",
]
