import io
import pickle

import numpy as np
import pytest

from hiersplat.segmentation.pickled import read_pickled_records


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def record(**values):
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    return {
        "segmentation": mask,
        "area": 6,
        "bbox": [1, 1, 2, 1],
        "predicted_iou": np.float64(0.9),
        "stability_score": 0.95,
        **values,
    }


@pytest.fixture
def write(tmp_path):
    def write_pickle(content, protocol=pickle.DEFAULT_PROTOCOL, name="sam_cache_0.pkl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return write_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_records_of_every_protocol_are_read(write, protocol):
    ((name, records),) = read_pickled_records(write([record(), record()], protocol))
    assert name == "sam_cache_0"
    assert len(records) == 2
    np.testing.assert_array_equal(records[0]["segmentation"], record()["segmentation"])
    assert records[0]["segmentation"].dtype == bool
    assert records[0]["predicted_iou"] == 0.9


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.zeros((0, 3)),
        np.array(2.5),
        np.arange(4, dtype=np.uint64)[::2],
        np.array([1 + 2j]),
    ],
)
def test_arrays_of_all_kinds_are_read(write, array):
    for protocol in (2, 5):
        ((_, (read,)),) = read_pickled_records(write([record(extra=array)], protocol))
        np.testing.assert_array_equal(read["extra"], array)
        assert read["extra"].dtype == array.dtype


def test_names_of_older_numpy_are_read(write):
    content = pickle.dumps([record()], 2).replace(b"numpy._core", b"numpy.core")
    ((_, records),) = read_pickled_records(write(content))
    np.testing.assert_array_equal(records[0]["segmentation"], record()["segmentation"])


def test_views_in_lists_and_mappings_are_told_apart(write):
    views = dict(read_pickled_records(write({"a.png": [record()], "b.png": [record()] * 2})))
    assert {name: len(records) for name, records in views.items()} == {"a.png": 1, "b.png": 2}
    assert len(list(read_pickled_records(write([[record()], [record()]])))) == 2


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_the_system_is_refused_and_never_run(write, tmp_path, protocol):
    import os

    trace = tmp_path / "was_here"
    path = write([record(extra=Call(os.system, f"touch {trace}"))], protocol)
    with pytest.raises(ValueError, match=r"sam_cache_0\.pkl: refused.*system") as failure:
        list(read_pickled_records(path))
    assert "\n" not in str(failure.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("1",)),
        (getattr, ("text", "format")),
        (bytes, (10**9,)),
        (np.load, ("x",)),
        (np.frombuffer, (b"x",)),
        (np.lib.format.open_memmap, ("x",)),
        (bytearray, (10**9,)),
        (range, (5,)),
        (open, ("x", "w")),
        (__import__, ("os",)),
    ],
)
def test_any_other_function_is_refused(write, function, arguments):
    with pytest.raises(ValueError, match="refused|spoiled"):
        list(read_pickled_records(write([record(extra=Call(function, *arguments))])))


def test_numpys_own_functions_behind_dotted_names_are_refused(write):
    content = b"\x80\x04\x8c\x05numpy\x8c\x0clib.npyio.os\x93."
    with pytest.raises(ValueError, match="refused"):
        list(read_pickled_records(write(content)))


def test_object_arrays_are_refused(write):
    array = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(ValueError, match="more than plain numbers"):
        list(read_pickled_records(write([record(extra=array)])))


def test_structured_arrays_are_refused(write):
    array = np.zeros(2, dtype=[("a", "O"), ("b", "i4")])
    with pytest.raises(ValueError, match="plain numbers|damaged"):
        list(read_pickled_records(write([record(extra=array)])))


def _array_pickle(dtype, state, shape, content):
    """A pickle of an array whose type and state are whatever one likes."""

    class Dtype:
        def __reduce__(self):
            return np.dtype, (dtype, False, True), state

    class Array:
        def __reduce__(self):
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, Dtype(), False, content)

    return pickle.dumps([record(extra=Array())], 4)


def test_bytes_that_pretend_to_be_objects_are_refused(write):
    """Object arrays with their flags cleared would make numpy follow pointers in the file."""
    state = (3, "|", None, None, None, -1, -1, 0)
    path = write(_array_pickle("O8", state, (1,), b"\x41" * 8))
    with pytest.raises(ValueError, match="plain numbers"):
        list(read_pickled_records(path))


def test_a_shape_larger_than_the_content_is_refused(write):
    state = (3, "<", None, None, None, -1, -1, 0)
    path = write(_array_pickle("f8", state, (10**9,), b"\x00" * 8))
    with pytest.raises(ValueError, match="damaged"):
        list(read_pickled_records(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([record()])[:-20],
        pickle.dumps(3),
        pickle.dumps([]),
        pickle.dumps({"a": [1, 2]}),
        b"\x80\x04P1\n.",
    ],
)
def test_what_holds_no_records_is_named(write, content):
    with pytest.raises(ValueError, match=r"sam_cache_0\.pkl: "):
        list(read_pickled_records(write(content)))


def test_endless_nesting_ends(write):
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        list(read_pickled_records(write(endless)))


def test_persistent_ids_are_refused(write):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return "outside" if isinstance(obj, str) and obj == "marker" else None

    buffer = io.BytesIO()
    Pickler(buffer).dump([record(extra="marker")])
    with pytest.raises(ValueError, match="outside the file"):
        list(read_pickled_records(write(buffer.getvalue())))
