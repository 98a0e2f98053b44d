"""Facets of a made-up car: lofted shells, patches laid on them, boxes, tubes and balls.

Car frame, in metres: x from the nose (0) to the tail, y across, z up from the floor.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

# What lies over what. Strict layers, because sorting by depth alone lets a door handle sink into
# its door. A car is nearly convex, so that one order serves all views (see `Mesh.add` for parts
# that need two).
BACK, BODY, TRIM, DETAIL, CABIN, GLASS, WHEEL, FRONT = range(8)

Array = np.ndarray
Rng = np.random.Generator
Surface = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Material:
    """How a surface meets the light; colours are linear, 0 to 1."""

    colour: tuple[float, float, float]
    mirror: float = 0.0  # reflectance seen head-on; 0.04 is clear coat, 0.6 chrome
    metal: float = 0.0  # share of flakes: blurred reflections in the paint's own colour
    glow: float = 0.0  # light from within or through: lamps, windows


@dataclass
class Mesh:
    """Facets with their material and layer, gathered part by part."""

    parts: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def add(
        self,
        grid: Array,  # (rows, columns, 3) corners
        material: Material,
        layer: float,
        inside: tuple[float, float, float] | None = None,
        seen_from: tuple[float, float, float] | None = None,
    ) -> None:
        """Add the facets of a grid.

        `inside` is a point behind the surface (by default in the middle of the car), by which
        facets know their outer side. `seen_from` is (nx, ny, least): where the camera's position
        times (nx, ny) is below `least`, the part lies behind the car and is painted first.
        """
        corners = np.stack(
            (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]), axis=2
        ).reshape(-1, 4, 3)
        normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        keep = length[:, 0] > 1e-9  # grids come to a point at the ends of a patch
        corners, normals = corners[keep], normals[keep] / length[keep]
        behind = np.array((0.5 * grid[..., 0].mean() + 1.2, 0, 0.4) if inside is None else inside)
        if np.sum(normals * (corners.mean(axis=1) - behind)) < 0:
            normals = -normals
        row = (*material.colour, material.mirror, material.metal, material.glow, layer)
        row += seen_from or (0.0, 0.0, -1.0)
        self.parts.append((corners, normals, np.tile(row, (len(corners), 1))))

    def join(self) -> tuple[Array, Array, Array]:
        """Return corners (n, 4, 3), normals (n, 3), attributes (n, 10)."""
        return tuple(
            np.concatenate(arrays).astype(np.float32) for arrays in zip(*self.parts, strict=True)
        )


def curve(points: list[tuple[float, float]] | Array, radius: float) -> Callable[[Array], Array]:
    """Return a function through a polyline whose corners are rounded over `radius`."""
    xs, ys = np.array(points, dtype=float).T
    step = (xs[-1] - xs[0]) / 400
    half = max(1, round(radius / step))
    window = np.hanning(2 * half + 3)[1:-1]
    table = xs[0] + step * np.arange(-2 * half, 401 + 2 * half)
    # Odd reflection at the ends keeps their height and slope.
    inner = np.interp(np.clip(table, xs[0], xs[-1]), xs, ys)
    inner += np.where(table < xs[0], (table - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0]), 0)
    inner += np.where(table > xs[-1], (table - xs[-1]) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]), 0)
    smooth = np.convolve(inner, window / window.sum(), mode="same")
    return lambda x: np.interp(x, table[half:-half], smooth[half:-half])


@dataclass
class Shell:
    """A closed wall of rings, each a rounded rectangle in plan, and the lid on top of it.

    A point of the wall is named by its share of the height (`rise`, 0 to 1) and its x (on a side)
    or its y (on an end).
    """

    front: Callable[[Array], Array]  # rise -> x of the ring's nose
    rear: Callable[[Array], Array]
    half: Callable[[Array], Array]  # rise -> half the width
    low: Callable[[Array], Array]  # x -> z
    high: Callable[[Array], Array]
    bow: tuple[float, float] = (2.8, 4.0)  # how flat the front and the rear are in plan
    crown: float = 0.03  # of the lid, in metres
    flares: tuple[tuple[float, float], ...] = ()  # (x, z) where the wall bulges over a wheel

    def _place(self, along: Array, across: Array, rise: Array) -> Array:
        """Turn plan coordinates in [-1, 1] into points (..., 3)."""
        front, rear = self.front(rise), self.rear(rise)
        x = front + (rear - front) * (along + 1) / 2
        z = self.low(x) + (self.high(x) - self.low(x)) * rise
        y = self.half(rise) * across
        for wheel_x, wheel_z in self.flares:
            y = y * (1 + 0.03 * np.exp(-((x - wheel_x) ** 2 + (z - wheel_z) ** 2) / 0.16))
        return np.stack((x, y, z), axis=-1)

    def side(self, sign: int) -> Surface:
        """Return the surface of one side: (x, rise) -> points."""

        def point(x: Array, rise: Array) -> Array:
            front, rear = self.front(rise), self.rear(rise)
            along = np.clip(2 * (x - front) / (rear - front) - 1, -1, 1)
            bow = np.where(along < 0, *self.bow)
            return self._place(along, sign * (1 - np.abs(along) ** 7) ** (1 / bow), rise)

        return point

    def end(self, sign: int) -> Surface:
        """Return the surface of the front (-1) or the rear (1): (y, rise) -> points."""
        bow = self.bow[sign > 0]

        def point(y: Array, rise: Array) -> Array:
            across = np.clip(y / self.half(rise), -1, 1)
            return self._place(sign * (1 - np.abs(across) ** bow) ** (1 / 7), across, rise)

        return point

    def top(self, x: Array, y: Array) -> Array:
        """Return points of the lid."""
        # Flush with the wall all around: the crown dies out towards the rim.
        rim = self.side(1)(x, np.ones(1))[..., 1]
        z = self.high(x) + self.crown * (rim**2 - y**2) / float(self.half(np.array(1.0))) ** 2
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1)

    def outline(self, count: int) -> tuple[Array, Array]:
        """Return plan coordinates of half a ring, evenly spaced from nose to tail."""
        turn = np.linspace(0, np.pi, 2001)
        # Dense where the corners are: |along|^7 + |across|^bow = 1 in its own angle.
        bow = np.where(turn < np.pi / 2, *self.bow)
        along = -np.sign(np.cos(turn)) * (np.cos(turn) ** 2) ** (1 / 7)
        across = (np.sin(turn) ** 2) ** (1 / bow)
        length = float(self.rear(np.array(0.5)) - self.front(np.array(0.5))) / 2
        steps = np.hypot(np.diff(along) * length, np.diff(across) * self.half(np.array(0.5)))
        way = np.concatenate(([0], np.cumsum(steps)))
        even = np.linspace(0, way[-1], count)
        return np.interp(even, way, along), np.interp(even, way, across)

    def build(self, mesh: Mesh, material: Material, layer: int, columns: int, rows: int) -> None:
        """Add wall and lid to the mesh."""
        along, across = self.outline(columns)
        rise = np.linspace(0, 1, rows)[:, None]
        for sign in (-1, 1):
            mesh.add(self._place(along, sign * across, rise), material, layer)
        rim = self._place(along, across, np.ones(1))
        share = np.linspace(-1, 1, 17)[:, None]
        mesh.add(self.top(rim[:, 0], rim[:, 1] * share), material, layer)


def patch(surface: Surface, bottom: list, top: list, columns: int = 12, rows: int = 4) -> Array:
    """Return the grid between two polylines laid on a surface.

    Args:
        bottom: points in the surface's coordinates.
        top: the same; each is walked from end to end while the grid's columns go by.
    """
    edges = []
    for line in (bottom, top):
        line = np.array(line, dtype=float)
        place = np.linspace(0, 1, len(line))
        steps = np.linspace(0, 1, columns + 1)
        edges.append(np.stack([np.interp(steps, place, line[:, k]) for k in (0, 1)]))
    share = np.linspace(0, 1, rows + 1)[:, None]
    first, second = (edges[0][k] * (1 - share) + edges[1][k] * share for k in (0, 1))
    return surface(first, second)


def box(surface: Surface, a0: float, a1: float, b0: float, b1: float, columns=6, rows=2) -> Array:
    """Return the grid of a rectangle laid on a surface."""
    return patch(surface, [(a0, b0), (a1, b0)], [(a0, b1), (a1, b1)], columns, rows)


def oval(surface: Surface, a: float, b: float, ra: float, rb: float) -> Array:
    """Return the grid of an ellipse laid on a surface."""
    turn = np.linspace(0, np.pi, 13)
    upper = np.stack((a - ra * np.cos(turn), b + rb * np.sin(turn)), axis=1)
    lower = np.stack((a - ra * np.cos(turn), b - rb * np.sin(turn)), axis=1)
    return patch(surface, lower, upper, 12, 2)


def ball(
    centre: tuple[float, float, float], radii: tuple[float, float, float], power: float = 1.0
) -> Array:
    """Return the grid of an ellipsoid, or of a rounded box where `power` is below 1."""
    turn, tilt = np.linspace(0, 2 * np.pi, 33), np.linspace(-np.pi / 2, np.pi / 2, 17)[:, None]
    unit = np.stack(
        np.broadcast_arrays(np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)),
        axis=-1,
    )
    return np.array(centre) + np.sign(unit) * np.abs(unit) ** power * np.array(radii)


def tube(start: Array, end: Array, radius: float) -> Array:
    """Return the grid of a rod between two points."""
    start, end = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    axis = (end - start) / np.linalg.norm(end - start)
    right = np.cross(axis, (0.3, 0.9, 0.2))
    right /= np.linalg.norm(right)
    turn = np.linspace(0, 2 * np.pi, 7)[:, None]
    ring = radius * (np.cos(turn) * right + np.sin(turn) * np.cross(axis, right))
    return np.stack((start + ring, (start + end) / 2 + ring, end + ring))
