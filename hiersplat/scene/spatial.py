"""Places: where a thing is in its parent, as 4 x 4 matrices that act on columns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Vector = tuple[float, float, float]
MAX_COPIES = 500


@dataclass(frozen=True)
class Repeat:
    """Copies of a thing along a line or around a ring."""

    count: int
    """Number of copies, the first included."""
    step: Vector = (0.0, 0.0, 0.0)
    """Move from one copy to the next."""
    ring: float | None = None
    """Radius of a ring about z instead; the thing is moved out along x, then turned."""
    sweep: float = 360.0
    """Angle of the ring that the copies share, in degrees."""
    start: float = 0.0
    """Angle of the first copy on the ring, in degrees."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COPIES:
            raise ValueError(f"count must be in [1, {MAX_COPIES}], got {self.count}")

    def transforms(self) -> list[Float[np.ndarray, "4 4"]]:
        """Return one transform a copy, applied after the thing's own place."""
        result = []
        for i in range(self.count):
            moved = translation(*(i * s for s in self.step))
            if self.ring is not None:
                angle = self.start + i * self.sweep / self.count
                moved = moved @ rotation((0.0, 0.0, angle)) @ translation(self.ring, 0.0, 0.0)
            result.append(moved)
        return result


@dataclass(frozen=True)
class Placed:
    """Something with a place in its parent."""

    at: Vector = (0.0, 0.0, 0.0)
    """Place."""
    turn: float | Vector = 0.0
    """Angle about z, or angles about x, y and z, in degrees."""
    scale: float | Vector = 1.0
    """Size as a factor, or factors along x, y and z."""
    repeat: Repeat | tuple[Repeat, ...] | None = None
    """Copies of it; a list of two makes a grid."""

    def __post_init__(self) -> None:
        factors = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if min(factors) <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.num_copies() > MAX_COPIES:
            raise ValueError(f"repeat makes {self.num_copies()} copies; at most {MAX_COPIES}")

    def num_copies(self) -> int:
        """Return how many copies the repetition makes, 1 without one."""
        return int(np.prod([repeat.count for repeat in self._repeats()], dtype=np.int64))

    def _repeats(self) -> tuple[Repeat, ...]:
        if self.repeat is None:
            return ()
        return self.repeat if isinstance(self.repeat, tuple) else (self.repeat,)

    def transforms(self) -> list[Float[np.ndarray, "4 4"]]:
        """Return the transform into the parent's space of every copy."""
        angles = self.turn if isinstance(self.turn, tuple) else (0.0, 0.0, self.turn)
        factors = self.scale if isinstance(self.scale, tuple) else (self.scale,) * 3
        own = translation(*self.at) @ rotation(angles) @ np.diag([*factors, 1.0])
        copies = [own]
        for repeat in self._repeats():
            copies = [copy @ one for copy in repeat.transforms() for one in copies]
        return copies


def translation(x: float, y: float, z: float) -> Float[np.ndarray, "4 4"]:
    """Return the matrix that moves by a vector."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def rotation(degrees: Vector) -> Float[np.ndarray, "4 4"]:
    """Return the matrix that turns about x, then about y, then about z.

    Example:
        >>> rotation((0.0, 0.0, 90.0))[:3, :3].round().astype(int).tolist()
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    """
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[j, i] = np.sin(angle)
        turn[i, j] = -np.sin(angle)
        matrix = turn @ matrix
    return matrix


def transform_points(
    matrix: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "num_points 3"]
) -> Float[np.ndarray, "num_points 3"]:
    """Apply a transform to points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]
