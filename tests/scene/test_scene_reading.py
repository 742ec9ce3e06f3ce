"""Mistakes in a scene's YAML are named by file, line and key."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersplat.scene.reading import parse_yaml
from hiersplat.scene.shapes import Box, Cylinder
from hiersplat.scene.spatial import Repeat
from hiersplat.scene.spec import SceneSpec, load_scene

MINIMAL = """\
name: one-box
objects:
  - name: red box
    parts:
      - name: lid
        shapes:
          - {kind: box, size: [1, 1, 0.5]}
"""


def read(text: str) -> SceneSpec:
    return parse_yaml(text, SceneSpec, "x.yaml")


def test_minimal_scene_is_read_with_defaults():
    spec = read(MINIMAL)
    assert spec.objects[0].parts[0].shapes == (Box(size=(1.0, 1.0, 0.5)),)
    assert spec.image.width == 256
    assert spec.ground.name == "ground"


def test_kind_chooses_the_shape_and_numbers_become_floats():
    spec = read(MINIMAL.replace("box, size: [1, 1, 0.5]", "cylinder, radius: 1, height: 2"))
    shape = spec.objects[0].parts[0].shapes[0]
    assert shape == Cylinder(radius=1.0, height=2.0)
    assert isinstance(shape.radius, float)


def test_angle_may_be_a_number_or_three_and_repeat_one_or_a_list():
    text = MINIMAL.replace("kind: box", "kind: box, turn: [1, 2, 3], repeat: [{count: 2}]")
    shape = read(text).objects[0].parts[0].shapes[0]
    assert shape.turn == (1.0, 2.0, 3.0)
    assert shape.repeat == (Repeat(count=2),)
    text = MINIMAL.replace("kind: box", "kind: box, turn: 30, repeat: {count: 2}")
    shape = read(text).objects[0].parts[0].shapes[0]
    assert shape.turn == 30.0
    assert shape.repeat == Repeat(count=2)


MISTAKES = {
    "unknown key": (
        MINIMAL.replace("parts:", "colour: red\n    parts:"),
        ["x.yaml:4", "objects[0].colour", "unknown key", "material"],
    ),
    "unknown kind": (
        MINIMAL.replace("kind: box", "kind: blob"),
        ["x.yaml:7", "objects[0].parts[0].shapes[0].kind", "box", "lathe", "'blob'"],
    ),
    "no kind": (
        MINIMAL.replace("kind: box, ", ""),
        ["x.yaml:7", "objects[0].parts[0].shapes[0]", "needs the key 'kind'"],
    ),
    "no name": (
        MINIMAL.replace("name: one-box\n", ""),
        ["x.yaml:1", "needs the key 'name'"],
    ),
    "text for a number": (
        MINIMAL.replace("[1, 1, 0.5]", "[1, wide, 0.5]"),
        ["x.yaml:7", "shapes[0].size[1]", "expected a number", "'wide'"],
    ),
    "two numbers for three": (
        MINIMAL.replace("[1, 1, 0.5]", "[1, 1]"),
        ["x.yaml:7", "shapes[0].size", "expected 3 values, got 2"],
    ),
    "number for a list": (
        MINIMAL.replace("[1, 1, 0.5]", "1"),
        ["x.yaml:7", "shapes[0].size", "expected a list of 3 values, got '1'"],
    ),
    "not a number": (
        MINIMAL.replace("0.5]", ".nan]"),
        ["x.yaml:7", "size[2]", "finite"],
    ),
    "negative size": (
        MINIMAL.replace("0.5]", "-0.5]"),
        ["x.yaml:7", "shapes[0]", "size must be positive"],
    ),
    "fraction of a view": (
        MINIMAL + "cameras: [{views: 2.5}]\n",
        ["x.yaml:8", "cameras[0].views", "a whole number"],
    ),
    "truth value for a number": (
        MINIMAL + "seed: yes\n",
        ["x.yaml:8", "seed", "a whole number"],
    ),
    "unknown material": (
        MINIMAL.replace("kind: box", "kind: box, material: gold leaf") + "materials: {tin: {}}\n",
        ["objects[0].parts[0].shapes[0]", "'gold leaf'", "tin"],
    ),
    "unknown colour": (
        MINIMAL + "materials: {tin: {colour: blurple}}\n",
        ["x.yaml:8", "materials.tin", "'blurple'", "#rrggbb"],
    ),
    "key given twice": (
        MINIMAL + "seed: 1\nseed: 2\n",
        ["x.yaml:9", "seed", "twice"],
    ),
    "every view held out": (
        MINIMAL + "cameras: [{views: 2, held_out: 2}]\n",
        ["every view is held out"],
    ),
    "no objects": ("name: a\nobjects: []\n", ["'objects' is empty"]),
    "list instead of mapping": ("- 1\n", ["x.yaml:1", "expected a mapping"]),
    "outline that crosses itself": (
        MINIMAL.replace(
            "kind: box, size: [1, 1, 0.5]",
            "kind: extrude, outline: [[0, 0], [1, 1], [1, 0], [0, 1]]",
        ),
        ["shapes[0]", "crosses itself"],
    ),
    "broken yaml": ("name: [1,\nobjects: }\n", ["x.yaml:", "not a YAML file"]),
    "empty": ("", ["x.yaml", "empty"]),
    "unsafe name": (MINIMAL.replace("one-box", "../box"), ["name must be letters"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named_with_its_place(mistake):
    text, expected = MISTAKES[mistake]
    with pytest.raises(ValueError, match=r"x\.yaml") as caught:
        read(text)
    for words in expected:
        assert words in str(caught.value)


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_scene(tmp_path / "nowhere.yaml")


def test_file_that_is_no_text_is_named(tmp_path: Path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ValueError, match="picture.yaml"):
        load_scene(path)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_one_kind_of_error(text):
    with pytest.raises(ValueError, match="x.yaml"):
        read("objects: 1\n" + text)


@given(st.lists(st.sampled_from(MINIMAL.splitlines()), max_size=8))
def test_shuffled_lines_are_read_or_refused_with_one_kind_of_error(lines):
    # Any other error would escape.
    with suppress(ValueError):
        read("\n".join(lines))


def test_example_in_the_readme_is_a_scene():
    readme = Path(__file__).parent.parent.parent / "scenes" / "README.md"
    example = readme.read_text().split("```yaml\n")[1].split("```")[0]
    assert [detail.name for detail in read(example).objects[0].parts[0].details] == ["drawer knob"]
