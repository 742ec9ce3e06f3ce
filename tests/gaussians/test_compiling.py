from hiersplat.gaussians import compiling


def test_every_file_with_kernels_is_in_the_fingerprint():
    folder = compiling.Path(compiling.__file__).parent
    named = set(compiling._SOURCES)
    with_kernels = {
        path.stem
        for path in folder.glob("*.py")
        if "import kernel" in path.read_text() or "numba.extending" in path.read_text()
    }
    assert with_kernels <= named


def test_machine_code_is_kept_under_the_fingerprint(monkeypatch, tmp_path):
    @compiling.kernel
    def twice(x):
        return 2 * x

    assert twice(4) == 8
    key = twice._cache._index_key(twice.signatures[0], twice.targetctx.codegen())
    assert compiling.fingerprint() in key
