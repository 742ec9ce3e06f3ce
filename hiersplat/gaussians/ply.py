"""3DGS's ``.ply``: one vertex per Gaussian, everything before activation, float32.

Names and order are those of the original implementation and of ``ns-export gaussian-splat``:
``x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*``, with ``f_rest`` channel by channel.
Properties of other names are ignored by viewers, so labels can travel along.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from hiersplat.cache import write_atomically
from hiersplat.gaussians.splats import Splats

_REST_COUNTS = {0: 1, 9: 4, 24: 9, 45: 16}


def read_ply(path: Path) -> Splats:
    """Read Gaussians from a 3DGS ``.ply``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a 3DGS ``.ply``.
    """
    vertices = _read_vertices(path)
    names = set(vertices.dtype.names or ())
    rest = sum(name.startswith("f_rest_") for name in names)
    needed = [*"xyz", "opacity"]
    needed += [
        f"{stem}_{i}" for stem, n in (("f_dc", 3), ("scale", 3), ("rot", 4)) for i in range(n)
    ]
    needed += [f"f_rest_{i}" for i in range(rest)]
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(
            f"{path}: not a 3DGS file, it has no property {missing[0]!r}; export one with "
            "ns-export gaussian-splat"
        )
    if rest not in _REST_COUNTS:
        raise ValueError(
            f"{path}: {rest} f_rest properties; 3DGS has 0, 9, 24 or 45 (degree 0 to 3)"
        )

    def columns(*wanted: str) -> torch.Tensor:
        stacked = np.stack([vertices[name] for name in wanted], axis=-1)
        return torch.from_numpy(stacked.astype(np.float32))

    def numbered(stem: str, count: int) -> torch.Tensor:
        return columns(*(f"{stem}_{i}" for i in range(count)))

    sh = numbered("f_dc", 3)[:, None, :]
    if rest:
        by_channel = numbered("f_rest", rest).reshape(len(vertices), 3, rest // 3)
        sh = torch.cat([sh, by_channel.transpose(1, 2)], dim=1)
    return Splats(
        means=columns("x", "y", "z"),
        quats=numbered("rot", 4),
        log_scales=numbered("scale", 3),
        logit_opacities=columns("opacity")[:, 0],
        sh=sh.contiguous(),
    )


def _read_vertices(path: Path) -> np.ndarray:
    from plyfile import PlyData, PlyParseError

    try:
        content = PlyData.read(path)
        return np.asarray(content["vertex"].data)
    except FileNotFoundError:
        raise
    except (PlyParseError, KeyError, ValueError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a 3DGS file ({reason})") from error


def write_ply(
    path: Path,
    splats: Splats,
    extra: Mapping[str, Shaped[np.ndarray, " num_gaussians"]] | None = None,
) -> None:
    """Write Gaussians as a binary 3DGS ``.ply``.

    Args:
        path: File to write; it appears whole or not at all.
        splats: The Gaussians.
        extra: Further properties, numbers of at most 32 bits if integers, at most 64 if floats.

    Raises:
        ValueError: If an extra property does not fit or has a name that 3DGS uses.
        CacheError: If the file cannot be written.
    """
    from plyfile import PlyData, PlyElement

    count = len(splats)
    columns: dict[str, np.ndarray] = {}

    def add(stem: str, values: torch.Tensor) -> None:
        for i, column in enumerate(values.detach().cpu().float().numpy().T):
            columns[f"{stem}_{i}"] = column

    for name, column in zip("xyz", splats.means.detach().cpu().float().numpy().T, strict=True):
        columns[name] = column
    for name in ("nx", "ny", "nz"):
        columns[name] = np.zeros(count, np.float32)
    add("f_dc", splats.sh[:, 0])
    add("f_rest", splats.sh[:, 1:].transpose(1, 2).flatten(1))
    columns["opacity"] = splats.logit_opacities.detach().cpu().float().numpy()
    add("scale", splats.log_scales)
    add("rot", splats.quats)
    for name, values in (extra or {}).items():
        values = np.asarray(values)
        if values.shape != (count,):
            raise ValueError(f"property {name!r} has shape {values.shape}; expected ({count},)")
        if name in columns or not name.isidentifier():
            raise ValueError(f"property {name!r}: the name is taken or is not an identifier")
        if values.dtype.kind not in "iuf" or (values.dtype.kind in "iu" and values.itemsize > 4):
            raise ValueError(f"property {name!r} is {values.dtype}, which .ply has no type for")
        columns[name] = values
    table = np.empty(count, dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    buffer = io.BytesIO()
    PlyData([PlyElement.describe(table, "vertex")]).write(buffer)
    write_atomically(path, buffer.getvalue())
