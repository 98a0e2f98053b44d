"""Render photographs of made-up cars, with exact masks, in the competition's format.

A car is a small 3-D model: two lofted shells (body and greenhouse), four wheels, and details laid
on them as patches. The studio, the camera and the paint are drawn from the car's seed; the view
turns the table. Facets are painted back to front at twice the size, and the coverage of the same
facets is the mask, so photograph and mask agree to the pixel.

Car frame, in metres: x from the nose (0) to the tail, y across, z up from the floor. World frame:
the camera stands at y = -distance and looks along +y; the table's centre is the origin.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from carvana import rle
from carvana.competition import HEIGHT, VIEWS, WIDTH
from carvana.errors import CarvanaError, UsageError
from carvana.files import replacing, write_text
from carvana.progress import progress

JPEG = {"format": "JPEG", "quality": 55, "subsampling": "4:2:0"}  # as in the real train.zip
WORDMARK = ("SAND", "BOX")  # on the wall: thin letters, then bold ones
MARKER = "rendered.json"  # written last: what a complete folder holds
VERSION = 1  # of the drawing; raise it when the same seed gives other pictures
FILES = ("train.zip", "train_masks.zip", "train_masks.csv.zip", "test.zip")
FILES += ("sample_submission.csv.zip", "solution.csv")
HEADER = ["img", "rle_mask"]
PUBLIC_SHARE = 0.25  # of the test photographs
SCALE = 2  # supersampling
GRAIN_MARGIN = 256  # pixels the sheet of sensor noise can be shifted by

# What lies over what. Strict layers, because sorting by depth alone lets a door handle sink into
# its door. A car is nearly convex, so that one order serves all views (see `Mesh.add` for parts
# that need two).
BACK, BODY, TRIM, DETAIL, CABIN, GLASS, WHEEL, FRONT = range(8)

Array = np.ndarray
Rng = np.random.Generator
Surface = Callable[[Array, Array], Array]


# --------------------------------------------------------------------------------------- geometry


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


# ------------------------------------------------------------------------------------------- cars


@dataclass(frozen=True)
class Style:
    """Measures of a kind of car, in metres; x counts from the nose."""

    length: float
    width: float
    height: float
    axles: tuple[float, float]
    wheel: float  # radius
    sill: float  # height of the body's lower edge
    nose: float  # heights of the body's upper edge: at the nose, the windscreen, the tail
    cowl: float
    tail: float
    screen: tuple[float, float]  # windscreen: x of its foot and its head
    back: tuple[float, float]  # rear window: x of its head and its foot
    doors: tuple[float, ...]  # x where side windows are divided
    roof: float = 0.66  # width of the roof, as a share of the car's
    tall: bool = False  # sits high: cladding, roof rails
    bed: bool = False


# fmt: off
STYLES = (
    # sedan, coupe, hatchback, wagon, sport utility, van, pickup
    Style(4.78, 1.84, 1.46, (0.94, 3.72), 0.33, 0.19, 0.72, 0.95, 1.02,
          (1.32, 2.12), (3.20, 4.08), (2.46, 3.44)),
    Style(4.68, 1.88, 1.37, (0.93, 3.64), 0.34, 0.16, 0.70, 0.92, 0.99,
          (1.45, 2.10), (3.05, 4.20), (2.98,)),
    Style(4.10, 1.77, 1.50, (0.84, 3.40), 0.32, 0.18, 0.74, 0.98, 0.99,
          (1.14, 1.90), (3.42, 3.98), (2.26, 3.16)),
    Style(4.82, 1.85, 1.50, (0.95, 3.78), 0.34, 0.19, 0.74, 0.97, 1.00,
          (1.34, 2.12), (4.10, 4.68), (2.48, 3.46)),
    Style(4.72, 1.91, 1.72, (0.92, 3.66), 0.38, 0.27, 0.94, 1.12, 1.10,
          (1.34, 1.98), (4.02, 4.58), (2.42, 3.38), 0.70, tall=True),
    Style(5.08, 1.98, 1.76, (0.96, 4.00), 0.35, 0.20, 0.82, 1.05, 1.05,
          (1.02, 1.94), (4.52, 4.96), (2.42, 3.62), 0.72),
    Style(5.75, 2.00, 1.90, (0.98, 4.58), 0.41, 0.36, 1.06, 1.22, 1.24,
          (1.58, 2.20), (3.76, 3.98), (2.62, 3.50), 0.70, tall=True, bed=True),
)
# fmt: on
STYLE_SHARES = (0.30, 0.11, 0.14, 0.06, 0.22, 0.06, 0.11)

# Colour, share of flakes, how common. White, silver, grey and black are what makes the real task
# hard: they are the wall, the floor, and the shadow.
PAINTS = (
    ((0.80, 0.80, 0.79), 0.0, 0.20),
    ((0.74, 0.72, 0.66), 0.1, 0.05),
    ((0.44, 0.45, 0.46), 0.5, 0.18),
    ((0.13, 0.135, 0.145), 0.45, 0.15),
    ((0.010, 0.010, 0.012), 0.0, 0.19),
    ((0.36, 0.015, 0.02), 0.2, 0.07),
    ((0.02, 0.05, 0.20), 0.3, 0.07),
    ((0.05, 0.17, 0.34), 0.3, 0.03),
    ((0.03, 0.09, 0.05), 0.3, 0.02),
    ((0.30, 0.25, 0.17), 0.4, 0.02),
    ((0.11, 0.06, 0.035), 0.3, 0.02),
)

RUBBER = Material((0.016, 0.016, 0.017), 0.01)
BLACK = Material((0.012, 0.012, 0.013), 0.03)
CLADDING = Material((0.035, 0.035, 0.037), 0.02)
WELL = Material((0.004, 0.004, 0.004))
CHROME = Material((0.35, 0.35, 0.36), 0.55)
LENS = Material((0.14, 0.145, 0.15), 0.25)
LAMP = Material((0.35, 0.35, 0.34), 0.3, glow=0.06)
RED = Material((0.40, 0.012, 0.015), 0.08, glow=0.02)
AMBER = Material((0.60, 0.16, 0.01), 0.08)
PLATE = Material((0.75, 0.76, 0.78), 0.03)
INK = Material((0.02, 0.05, 0.20), 0.03)


def vary(style: Style, rng: Rng) -> Style:
    """Return the style with this car's own measures."""
    along, up, shift = rng.uniform(0.97, 1.03), rng.uniform(0.97, 1.03), rng.uniform(-0.06, 0.06)
    return replace(
        style,
        length=style.length * along,
        width=style.width * rng.uniform(0.98, 1.02),
        height=style.height * up,
        axles=tuple(along * x for x in style.axles),
        wheel=style.wheel * rng.uniform(0.96, 1.05),
        sill=style.sill * rng.uniform(0.85, 1.15),
        nose=style.nose * up * rng.uniform(0.96, 1.05),
        cowl=style.cowl * up,
        tail=style.tail * up * rng.uniform(0.97, 1.04),
        screen=tuple(along * x + shift for x in style.screen),
        back=tuple(along * x - shift for x in style.back),
        doors=tuple(along * x for x in style.doors),
        roof=style.roof * rng.uniform(0.97, 1.03),
    )


def shells(style: Style, rng: Rng) -> tuple[Shell, Shell]:
    """Return the body and the greenhouse (all that is above the windows' lower edge)."""
    length, half = style.length, style.width / 2
    rise = np.array((0, 0.12, 0.35, 0.55, 0.75, 0.92, 1))
    lean = rng.uniform(0.06, 0.18)  # how far the nose lies back
    front = np.array((0.16, 0.05, 0, 0.01, 0.05, 0.6 * lean + 0.05, lean + 0.12))
    rear = length - np.array((0.18, 0.04, 0, 0.02, 0.05, 0.09, 0.16))
    crease = rng.uniform(0.55, 0.70)  # a line along the side that catches the light
    waist = [(0, 0.90), (0.12, 0.955), (0.3, 0.97), (crease, 1), (crease + 0.05, 0.985)]
    waist += [(0.82, 0.965), (0.93, 0.93), (1, 0.84)]
    low, nose, tail = style.sill, style.nose, style.tail
    under = [(0, low + 0.04), (0.5, low), (length - 0.7, low), (length, low + 0.06)]
    upper = [(0, nose), (0.35, nose + 0.08), (style.screen[0] - 0.05, style.cowl)]
    upper += [(style.back[1] - 0.5, tail + 0.01), (length - 0.12, tail), (length, tail - 0.05)]
    body = Shell(
        front=curve(np.stack((rise, front), axis=1), 0.06),
        rear=curve(np.stack((rise, rear), axis=1), 0.05),
        half=curve(np.array(waist) * (1, half), 0.03),
        low=curve(under, 0.2),
        high=curve(upper, 0.16),
        bow=(rng.uniform(2.7, 3.6) + 0.8 * style.tall, rng.uniform(3.4, 5.0)),
        crown=rng.uniform(0.03, 0.06),
        flares=tuple((x, style.wheel) for x in style.axles),
    )
    (foot, head), (back_head, back_foot) = style.screen, style.back
    middle, span = (head + back_head) / 2 - 0.1, back_head - head + 1.2
    drop = 0.05 if style.tall else 0.09  # the roof's curve along the car
    wide = [(0, 0.835), (0.86, style.roof + 0.045), (1, style.roof * 0.9)]
    cabin = Shell(
        front=curve([(0, foot), (0.85, head - 0.06), (1, head + 0.18)], 0.12),
        rear=curve([(0, back_foot), (0.85, back_head + 0.06), (1, back_head - 0.16)], 0.12),
        half=curve(np.array(wide) * (1, half), 0.14),
        low=lambda x: body.high(x) - 0.02,
        high=lambda x: style.height - 0.03 - drop * (2 * (x - middle) / span) ** 2,
        bow=(2.6, 3.4),
        crown=0.035,
    )
    return body, cabin


def beside(style: Style, sign: int) -> tuple[float, float, float]:
    """Return `seen_from` for what lies on a side: from straight ahead the body hides it."""
    return 0.0, sign, style.width / 2 + 0.2


def arch(body: Shell, x: float, radius: float, height: float) -> tuple[Array, Array]:
    """Return the lower and the upper edge of a wheel arch, (n, 2): x and rise."""
    turn = np.linspace(0, np.pi, 33)
    xs, zs = x - radius * np.cos(turn), height + radius * np.sin(turn)
    rise = (zs - body.low(xs)) / (body.high(xs) - body.low(xs))
    return np.stack((xs, 0 * xs), axis=1), np.stack((xs, np.clip(rise, 0, 1)), axis=1)


def add_wheel(mesh: Mesh, hub: tuple[float, float, float], radius: float, look: dict) -> None:
    """Add one wheel; `hub` is the middle of its outer face."""
    x, y, z = hub
    sign = math.copysign(1, y)
    inside = (x, y - sign * 0.3, z)
    # A wheel's face is dished: without this its far rim would shine through the body.
    seen = (0.0, sign, abs(y) + 0.3)

    def face(r: Array, turn: Array, depth: float | Array = 0.0) -> Array:
        points = (x + r * np.cos(turn), y - sign * depth + 0 * r, z + r * np.sin(turn))
        return np.stack(np.broadcast_arrays(*points), axis=-1)

    turn = np.linspace(0, 2 * np.pi, 61)[:, None]
    radii, depths = np.array([(0.01, 0.24), (radius, 0.24), (radius, 0.03), (0.975 * radius, 0)]).T
    mesh.add(face(radii, turn, depths), RUBBER, BACK, inside=(x, y - sign * 0.12, z))

    def add(grid: Array, material: Material, step: float) -> None:
        mesh.add(grid, material, WHEEL + step, inside, seen)

    rim = look["rim"] * radius
    rings = np.array([(radius, 0.03), (0.975 * radius, 0), (0.85 * radius, -0.012), (rim, 0.01)])
    add(face(rings[:, 0], turn, rings[:, 1]), RUBBER, 0)
    add(face(np.array([0.01, rim]), turn, 0.025), WELL, 0.1)
    add(face(np.array([0.1, 0.62]) * radius, turn, 0.025), look["disc"], 0.2)
    r = np.linspace(0.08 * radius, 0.96 * rim, 5)[:, None]
    wide = look["wide"] * 0.35 * (1 + rim / r) * np.array([-0.5, -0.2, 0.2, 0.5])
    depth = 0.012 - 0.01 * r / rim + np.array([0.02, 0, 0, 0.02])
    for spoke in range(look["spokes"]):
        middle = look["turn"] + 2 * np.pi * spoke / look["spokes"]
        add(face(r, middle + wide, depth), look["metal"], 0.3)
    hoop = np.array([(0.93 * rim, 0.02), (0.97 * rim, 0.0), (1.01 * rim, 0.005)])
    add(face(hoop[:, 0], turn, hoop[:, 1]), look["metal"], 0.4)
    add(face(np.array([0.005, 0.15 * radius]), turn, 0.0), look["cap"], 0.5)


def add_wheels(mesh: Mesh, style: Style, body: Shell, rng: Rng) -> None:
    """Add four wheels in their arches, all of one look."""
    shade = rng.choice([0.55, 0.35, 0.12, 0.012], p=[0.45, 0.25, 0.1, 0.2])
    metal = Material((shade, shade, shade), 0.12, 0.4 if shade > 0.1 else 0.0)
    look = {
        "rim": rng.uniform(0.66, 0.78),
        "spokes": int(rng.choice([5, 6, 7, 10, 15])),
        "turn": rng.uniform(0, 2 * np.pi),
        "metal": metal,
        "disc": Material((0.08, 0.08, 0.085), 0.1),
        "cap": metal if rng.random() < 0.6 else BLACK,
    }
    look["wide"] = rng.uniform(0.30, 0.62) * 2 * np.pi / look["spokes"]
    lip = CLADDING if style.tall and rng.random() < 0.6 else None
    gap = style.wheel * 1.12
    for x, sign in itertools.product(style.axles, (-1, 1)):
        side, seen = body.side(sign), beside(style, sign)
        if lip:
            edge = patch(side, *arch(body, x, gap + 0.055, style.wheel), 40, 5)
            mesh.add(edge, lip, TRIM, None, seen)
        hole = patch(side, *arch(body, x, gap, style.wheel), 40, 5)
        mesh.add(hole, WELL, TRIM + 0.5, None, seen)
        y = float(side(np.array(x), np.array(0.3))[1]) - sign * 0.015
        add_wheel(mesh, (x, y, style.wheel), style.wheel, look)


def add_sides(mesh: Mesh, style: Style, body: Shell, paint: Material, rng: Rng) -> None:
    """Add sills, door seams, handles and marker lights."""
    first, last = style.axles[0] + style.wheel * 1.1, style.axles[1] - style.wheel * 1.1
    handles = CHROME if rng.random() < 0.3 else paint
    sill = CLADDING if style.tall or rng.random() < 0.5 else paint
    strip = rng.random() < 0.3
    seams = [style.screen[0] + 0.12, *style.doors]
    if len(style.doors) > 1:
        seams[-1] = min(seams[-1], last + 0.25)
    for sign in (-1, 1):
        side, seen = body.side(sign), beside(style, sign)

        def add(material: Material, step: float, *place, side=side, seen=seen) -> None:
            mesh.add(box(side, *place), material, TRIM + step, None, seen)

        for start, stop in ((0.12, first - 0.3), (first, last), (last + 0.3, style.length - 0.12)):
            add(sill, 0, start, stop, -0.01, 0.11, 40, 2)
        add(BLACK, 1, first - 0.1, last + 0.1, 0.105, 0.115, 60, 1)
        if strip:
            add(CHROME, 1, first, last, 0.30, 0.34, 60, 1)
        for x in seams:
            add(WELL, 1, x, x + 0.007, 0.13, 0.99, 1, 14)
        for x in seams[1:]:
            add(WELL, 1.1, x - 0.22, x - 0.06, 0.755, 0.77, 5, 1)
            add(handles, 1.2, x - 0.24, x - 0.04, 0.77, 0.81, 5, 2)
        add(AMBER, 1, 0.30, 0.42, 0.42, 0.47, 4, 1)


def add_front(mesh: Mesh, style: Style, body: Shell, rng: Rng) -> None:
    """Add grille, headlights, intake, fog lights, badge and plate."""
    end, half = body.end(-1), style.width / 2
    wide, foot, head = half * rng.uniform(0.36, 0.5), rng.uniform(0.42, 0.5), rng.uniform(0.7, 0.8)
    slope = rng.uniform(0.7, 1.05)
    grille = [(-wide * slope, foot), (wide * slope, foot)], [(-wide, head), (wide, head)]
    mesh.add(patch(end, *grille, 16, 6), BLACK, TRIM)
    bars = CHROME if rng.random() < 0.5 else CLADDING
    count = int(rng.integers(2, 7))
    for bar in range(count):
        level = foot + (head - foot) * (bar + 0.5) / count
        reach = wide * (slope + (1 - slope) * (bar + 0.5) / count) * 0.97
        mesh.add(box(end, -reach, reach, level - 0.012, level + 0.012, 16, 1), bars, TRIM + 0.1)
    mesh.add(oval(end, 0, head - 0.06, 0.07, 0.05), CHROME, TRIM + 0.2)
    mesh.add(box(end, -half * 0.62, half * 0.62, 0.10, 0.28, 16, 3), BLACK, TRIM)
    inner, top = wide + 0.05, rng.uniform(0.80, 0.88)
    low = rng.uniform(0.56, 0.66)
    for sign in (-1, 1):
        line = sign * np.array([inner, half * 0.70, half * 0.82, half * 0.89])
        lower = np.stack((line, (low + 0.06, low, low + 0.01, low + 0.08)), axis=1)
        upper = np.stack((line, (top - 0.09, top - 0.02, top, top)), axis=1)
        mesh.add(patch(end, lower, upper, 24, 8), LENS, TRIM)
        for share, radius in ((0.30, 0.045), (0.62, 0.055)):
            y = sign * (inner + share * (half * 0.85 - inner))
            mesh.add(oval(end, y, (low + top) / 2, radius + 0.012, 0.075), BLACK, TRIM + 0.1)
            mesh.add(oval(end, y, (low + top) / 2, radius, 0.055), LAMP, TRIM + 0.2)
        mesh.add(oval(end, sign * half * 0.74, 0.22, 0.10, 0.07), BLACK, TRIM + 0.1)
        mesh.add(oval(end, sign * half * 0.74, 0.22, 0.045, 0.05), LAMP, TRIM + 0.2)
    add_plate(mesh, end, 0.30)


def add_plate(mesh: Mesh, end: Surface, level: float) -> None:
    """Add a licence plate at a share of the body's height."""
    mesh.add(box(end, -0.165, 0.165, level, level + 0.19), PLATE, DETAIL)
    mesh.add(box(end, -0.15, 0.15, level + 0.015, level + 0.045), INK, DETAIL + 0.1)
    for y in (-0.11, -0.07, -0.03, 0.03, 0.07, 0.11):
        grid = box(end, y - 0.012, y + 0.012, level + 0.07, level + 0.15, 1, 1)
        mesh.add(grid, INK, DETAIL + 0.1)


def add_rear(mesh: Mesh, style: Style, body: Shell, rng: Rng) -> None:
    """Add tail lights, boot seam, lower bumper, exhausts, badge and plate."""
    end, half = body.end(1), style.width / 2
    foot, head = rng.uniform(0.52, 0.62), rng.uniform(0.82, 0.9)
    inner = half * rng.uniform(0.55, 0.72)
    for sign in (-1, 1):
        line = sign * np.array([half * 0.72 if style.tall else inner, half * 0.84, half * 0.90])
        lower = np.stack((line, (foot + 0.04, foot - 0.12 * style.tall, foot)), axis=1)
        upper = np.stack((line, (head - 0.02, head, head)), axis=1)
        mesh.add(patch(end, lower, upper, 24, 8), RED, TRIM)
        grid = box(end, line[0] * 1.02, line[1], foot + 0.08, foot + 0.14, 6, 1)
        mesh.add(grid, LENS, TRIM + 0.1)
        mesh.add(box(end, sign * half * 0.68, sign * half * 0.687, 0.42, 0.98, 1, 8), WELL, DETAIL)
        if rng.random() < 0.7:
            mesh.add(oval(end, sign * half * 0.6, 0.10, 0.06, 0.05), CHROME, DETAIL)
            mesh.add(oval(end, sign * half * 0.6, 0.10, 0.045, 0.035), WELL, DETAIL + 0.1)
    mesh.add(box(end, -half * 0.8, half * 0.8, -0.01, 0.13, 20, 3), CLADDING, TRIM)
    mesh.add(box(end, -half * 0.86, half * 0.86, 0.40, 0.41, 20, 1), WELL, DETAIL)
    if style.bed or rng.random() < 0.3:
        mesh.add(box(end, -half * 0.9, half * 0.9, 0.20, 0.36, 20, 3), CHROME, TRIM)
    mesh.add(oval(end, 0, 0.82, 0.06, 0.04), CHROME, DETAIL)
    add_plate(mesh, end, 0.50)


def pane(surface: Surface, foot: tuple, head: tuple, low: float, high: float) -> Array:
    """Return the grid of a window: `foot` and `head` are where its edges start and end."""
    lower, upper = ([(a, level) for a in edge] for edge, level in ((foot, low), (head, high)))
    return patch(surface, lower, upper, 20, 12)


def add_screens(mesh: Mesh, cabin: Shell, glass: Material) -> None:
    """Add windscreen and rear window, with what is seen behind them, and the wipers."""
    low, high = 0.07, 0.80
    inner = Material(glass.colour, glass.mirror, 0, glass.glow * 0.3)
    for sign in (-1, 1):
        end = cabin.end(sign)
        foot, head = (0.89 * float(cabin.half(np.array(r))) for r in (low, high))
        mesh.add(pane(end, (-foot, foot), (-head, head), low, high), BLACK, GLASS)
        foot, head, low_glass = foot - 0.04, head - 0.04, low + 0.055
        grid = pane(end, (-foot, foot), (-head, head), low_glass, high - 0.02)
        mesh.add(grid, glass, GLASS + 0.1)
        for y in (-0.36, 0.36):
            mesh.add(oval(end, y, low + 0.32, 0.13, 0.15), inner, GLASS + 0.2)
            mesh.add(box(end, y - 0.22, y + 0.22, low_glass, low + 0.26), inner, GLASS + 0.2)
        mesh.add(box(end, -foot, foot, low_glass, low + 0.13, 20, 2), inner, GLASS + 0.2)
        if sign < 0:
            for y in (-0.55, 0.02):
                wiper = [(y, low + 0.04), (y + 0.5, low + 0.08)]
                grid = patch(end, wiper, [(y, level + 0.018) for y, level in wiper], 8, 1)
                mesh.add(grid, WELL, GLASS + 0.3)


def add_panes(mesh: Mesh, style: Style, cabin: Shell, glass: Material, bright: Material) -> None:
    """Add side windows, with their surrounds and the seats behind them."""
    low, high = 0.07, 0.80
    inner = Material(glass.colour, glass.mirror, 0, glass.glow * 0.3)
    front = [float(cabin.front(np.array(r))) for r in (low, high)]
    rear = [float(cabin.rear(np.array(r))) for r in (low, high)]
    pillar = 0.40 if style.tall or rear[0] - rear[1] < 0.62 else 0.55
    last = rear[0] - pillar, rear[1] - 0.34
    edges = [(front[0] + 0.30, front[1] + 0.18)]
    edges += [(min(x, last[0]), min(x, last[1])) for x in style.doors] + [last]
    for sign in (-1, 1):
        side, seen = cabin.side(sign), beside(style, sign)
        for row, ((foot0, head0), (foot1, head1)) in enumerate(itertools.pairwise(edges)):
            if foot1 - foot0 < 0.3:
                continue
            for gap, material, layer in ((0, bright, 0), (0.022, BLACK, 0.1), (0.04, glass, 0.2)):
                foot = foot0 + 2.2 * gap, foot1 - gap
                head = min(head0 + 1.5 * gap, head1 - 0.05), max(head1 - 1.3 * gap, head0)
                grid = pane(side, foot, head, low + gap, high - gap)
                mesh.add(grid, material, GLASS + layer, None, seen)
            if row < len(style.doors):
                x = min(foot1, (foot1 + head1) / 2 + 0.05) - 0.30  # clear of a raked pillar
                head = oval(side, x - 0.02, low + 0.42, 0.09, 0.14)
                mesh.add(head, inner, GLASS + 0.3, None, seen)
                seat = [(x - 0.12, low + 0.05), (x + 0.16, low + 0.05)]
                back = [(x - 0.10, low + 0.36), (x + 0.08, low + 0.36)]
                mesh.add(patch(side, seat, back), inner, GLASS + 0.3, None, seen)


def add_fittings(
    mesh: Mesh, style: Style, body: Shell, cabin: Shell, paint: Material, rng: Rng
) -> None:
    """Add mirrors, aerial, roof rails, spoiler, and a pickup's bed."""
    half, belt = style.width / 2, style.cowl
    shade = paint if rng.random() < 0.7 else CLADDING
    x = style.screen[0] + 0.42
    for sign in (-1, 1):
        centre = (x, sign * (half * 0.87 + 0.13), belt + 0.10)
        # Hidden by the cabin unless the camera is on this side or well ahead.
        seen = (-0.545, 0.839 * sign, -2.75)
        stalk = (x, sign * half * 0.86, belt + 0.05)
        mesh.add(ball(stalk, (0.04, 0.12, 0.025)), BLACK, FRONT, stalk, seen)
        mesh.add(ball(centre, (0.07, 0.12, 0.075), 0.6), shade, FRONT + 0.1, centre, seen)
        if style.tall and not style.bed:
            xs = np.linspace(style.screen[1] + 0.35, style.back[0] - 0.2, 7)
            ys = sign * half * style.roof * 0.84 + 0 * xs
            rail = cabin.top(xs, ys) + np.array((0, 0, 0.035))
            for a, b in itertools.pairwise(rail):
                mesh.add(tube(a, b, 0.016), CLADDING, FRONT, (a + b) / 2)
    kind = rng.choice(["fin", "rod", "none"], p=[0.4, 0.3, 0.3])
    foot = cabin.top(np.array(style.back[0] - 0.25), np.array(0.0))
    if kind == "fin":
        mesh.add(ball(foot + np.array((0, 0, 0.005)), (0.075, 0.014, 0.04)), shade, FRONT, foot)
    elif kind == "rod":
        tip = foot + np.array((0.22, 0.0, 0.36))
        mesh.add(tube(foot, tip, 0.006), BLACK, FRONT, (foot + tip) / 2)
    if style.back[1] - style.back[0] < 0.75 and not style.bed and rng.random() < 0.7:
        centre = cabin.top(np.array(style.back[0]), np.array(0.0)) - np.array((0, 0, 0.05))
        lip = ball(centre, (0.15, half * style.roof * 0.9, 0.022))
        mesh.add(lip, paint, FRONT, centre, (1.0, 0.0, 0.0))
    if style.bed:
        xs, ys = np.linspace(style.back[1] + 0.05, style.length - 0.22, 20), 0.70 * half
        mesh.add(body.top(xs[:, None], np.linspace(-ys, ys, 16)), BLACK, TRIM)
    else:
        for share in (-0.62, 0.62):
            xs = np.linspace(0.45, style.screen[0], 12)[:, None]
            line = share * half * (0.85 + 0.15 * (xs / style.screen[0])) + np.array([0, 0.008])
            mesh.add(body.top(xs, line), WELL, TRIM)


def build_car(rng: Rng) -> tuple[Style, Mesh]:
    """Draw a car: its measures and its facets, in the car frame."""
    style = vary(STYLES[rng.choice(len(STYLES), p=STYLE_SHARES)], rng)
    shares = np.array([share for *_, share in PAINTS])
    colour, metal, _ = PAINTS[rng.choice(len(PAINTS), p=shares / shares.sum())]
    colour = tuple(np.array(colour) * rng.uniform(0.85, 1.15) * rng.uniform(0.97, 1.03, 3))
    paint = Material(colour, 0.05, metal)
    roof = BLACK if rng.random() < 0.08 else paint
    glass = Material((0.012, 0.014, 0.014), 0.07, glow=rng.choice([0.01, 0.03, 0.10, 0.22]))
    body, cabin = shells(style, rng)
    mesh = Mesh()
    body.build(mesh, paint, BODY, 200, 32)
    cabin.build(mesh, roof, CABIN, 130, 16)
    add_sides(mesh, style, body, paint, rng)
    add_front(mesh, style, body, rng)
    add_rear(mesh, style, body, rng)
    add_screens(mesh, cabin, glass)
    add_panes(mesh, style, cabin, glass, CHROME if rng.random() < 0.35 else BLACK)
    add_wheels(mesh, style, body, rng)
    add_fittings(mesh, style, body, cabin, paint, rng)
    return style, mesh


# ----------------------------------------------------------------------------------------- studio


@dataclass(frozen=True)
class Camera:
    """A level camera with a shifted lens, so that uprights stay upright."""

    focal: float  # pixels
    distance: float  # to the table's axis, metres
    height: float
    centre: float  # column of the table's axis
    horizon: float  # row

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project world points (..., 3) to (columns, rows)."""
        scale = self.focal / (points[..., 1] + self.distance)
        column = self.centre + points[..., 0] * scale
        return column, self.horizon + (self.height - points[..., 2]) * scale


def aim(rng: Rng) -> Camera:
    """Draw a camera."""
    distance, height = rng.uniform(6.5, 7.2), rng.uniform(1.65, 2.0)
    focal = rng.uniform(305, 335) * distance
    floor = rng.uniform(760, 900)  # row of the table's centre
    centre = WIDTH / 2 + rng.uniform(-50, 50)
    return Camera(focal, distance, height, centre, floor - height * focal / distance)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Rise smoothly from 0 at `low` to 1 at `high`; fall where `high` is below `low`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def surroundings(ray: Array, blur: float) -> Array:
    """Return the light that comes from a direction (n, 3), as a mirror on the table sees it."""
    up = ray[:, 2]
    floor = 0.03 + 0.30 * smoothstep(-0.7, -0.02, up)
    # The lit wall is beyond the car; the hall behind the camera is dim.
    wall = 0.16 + 0.90 * smoothstep(-0.5, 0.5, ray[:, 1])
    ceiling = 0.55 + 1.3 * smoothstep(0.50 - blur / 3, 0.62 + blur / 3, up) * smoothstep(
        0.99, 0.90 - blur / 2, up
    )
    edge = 0.02 + 0.2 * blur
    light = floor + (wall - floor) * smoothstep(-edge, edge, up)
    return light + (ceiling - light) * smoothstep(0.32 - blur / 4, 0.42 + blur / 4, up)


def shade(normal: Array, to_camera: Array, height: Array, look: Array) -> Array:
    """Return the colour of facets, (n, 3) uint8.

    Args:
        normal: (n, 3), world frame.
        to_camera: (n, 3), unit.
        height: (n,) metres above the floor, under the car it is dark.
        look: (n, 6), the fields of `Material`.
    """
    colour, mirror, metal, glow = look[:, :3], look[:, 3], look[:, 4], look[:, 5]
    facing = np.clip(np.sum(normal * to_camera, axis=1), 0, 1)
    ray = 2 * facing[:, None] * normal - to_camera
    open_sky = smoothstep(-0.25, 0.75, height)
    sky = 0.5 + 0.5 * normal[:, 2]
    key = np.clip(normal @ np.array((-0.35, -0.55, 0.76), dtype=np.float32), 0, 1)
    diffuse = (0.42 * open_sky * (1 - sky) + 0.95 * sky) + 0.35 * key
    fresnel = (mirror + (1 - mirror) * (1 - facing) ** 5) * np.clip(mirror * 25, 0, 1)
    lustre = surroundings(ray, 0.0) * (0.35 + 0.65 * open_sky)
    flakes = metal * surroundings(ray, 1.0) * 1.3
    own = diffuse * (1 - 0.6 * metal) + flakes
    light = colour * own[:, None] + (fresnel * lustre + glow)[:, None] - 0.004
    return (255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def turned(view: int) -> Array:
    """Return the matrix from the car frame (about the table's axis) to the world frame."""
    angle = math.radians(22.5 * (view - 1))
    along, across = (np.sin(angle), np.cos(angle), 0), (np.cos(angle), -np.sin(angle), 0)
    # View 1 shows the nose: the car's x points away from the camera.
    return np.stack((along, across, (0, 0, 1)), axis=1).astype(np.float32)


@lru_cache(maxsize=2)
def stage(car_seed: int) -> "Stage":
    """Build what the sixteen views of a car share."""
    return Stage(car_seed)


class Stage:
    """A car, the studio it stands in, and the camera before it."""

    def __init__(self, car_seed: int):
        rng = np.random.default_rng([car_seed, 1])
        self.style, mesh = build_car(rng)
        self.corners, self.normals, self.looks = mesh.join()
        self.middle = np.array((self.style.length / 2, 0, 0), dtype=np.float32)
        self.middle[0] += rng.uniform(-0.15, 0.15)  # nobody parks on the very centre
        self.middle[1] += rng.uniform(-0.1, 0.1)
        self.camera = aim(rng)
        self.seams = rng.uniform(0, np.pi), int(rng.integers(2, 6)), rng.uniform(0.75, 0.93)
        self.shadow = rng.uniform(0.55, 0.8)
        self.backdrop = draw_backdrop(self.camera, rng)

    def facets(self, view: int) -> tuple[Array, Array]:
        """Return the visible facets, far to near: corners (n, 8) in pixels, colours (n, 3)."""
        turn = turned(view)
        eye = np.array((0, -self.camera.distance, self.camera.height), dtype=np.float32)
        normals = self.normals @ turn.T
        corners = (self.corners - self.middle) @ turn.T
        centres = corners.mean(axis=1)
        to_camera = eye - centres
        depth = np.linalg.norm(to_camera, axis=1)
        seen = np.flatnonzero(np.sum(normals * to_camera, axis=1) > 0)
        looks = self.looks[seen]
        in_car = eye @ turn
        layer = np.where(looks[:, 7:9] @ in_car[:2] > looks[:, 9], looks[:, 6], BACK)
        order = np.lexsort((-depth[seen], layer))
        seen, looks = seen[order], looks[order, :6]
        to_camera = to_camera[seen] / depth[seen, None]
        colours = shade(normals[seen], to_camera, centres[seen, 2], looks)
        columns, rows = self.camera.project(corners[seen])
        return np.stack((columns, rows), axis=2).reshape(-1, 8), colours

    def footprint(self, view: int, grow: float) -> Array:
        """Return the car's outline on the floor, (n, 2) pixels."""
        a = np.linspace(0, 2 * np.pi, 41)
        x = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.4 * (self.style.length / 2 + grow - 0.1)
        y = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.4 * (self.style.width / 2 + grow)
        offset = self.middle[:2] - (self.style.length / 2, 0)
        floor = np.stack((x - offset[0], y - offset[1], 0 * x), axis=1) @ turned(view).T
        return np.stack(self.camera.project(floor), axis=1)

    def floor_marks(self, view: int) -> Image.Image:
        """Return how much light the floor keeps: the car's shadow and the table's seams."""
        eighth = Image.new("L", (WIDTH // 8 + 1, HEIGHT // 8), 255)
        for grow, blur, strength in ((0.35, 7, 0.30), (0.05, 3, 0.55), (-0.12, 1.2, 0.75)):
            layer = Image.new("L", eighth.size, 255)
            polygon = (self.footprint(view, grow) / 8).ravel().tolist()
            keep = round(255 * (1 - strength * self.shadow))
            ImageDraw.Draw(layer).polygon(polygon, fill=keep)
            eighth = ImageChops.multiply(eighth, layer.filter(ImageFilter.GaussianBlur(blur)))
        start, count, keep = self.seams
        lines = Image.new("L", (SCALE * WIDTH, SCALE * HEIGHT), 255)
        draw = ImageDraw.Draw(lines)
        for k in range(count):
            angle = start + np.pi * k / count - math.radians(22.5 * (view - 1))
            ends = 3.1 * np.outer((-1, 1), (np.cos(angle), np.sin(angle), 0))
            row = SCALE * np.stack(self.camera.project(ends), axis=1)
            draw.line(row.ravel().tolist(), round(255 * keep), 3)
        marks = eighth.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        return ImageChops.multiply(marks, lines.reduce(SCALE))


def soften(image: Image.Image) -> Image.Image:
    """Bring a doubled image to size, a little out of focus, as a lens would."""
    size = image.width // SCALE, image.height // SCALE
    return image.resize(size, Image.Resampling.BILINEAR)  # each pixel from 4x4, weighted


def draw_backdrop(camera: Camera, rng: Rng) -> Image.Image:
    """Draw the empty studio: wall with wordmark, floor with turntable, and its clutter."""
    far = camera.distance + rng.uniform(5.5, 8.0)
    base = camera.horizon + camera.height * camera.focal / far  # row where wall meets floor
    rows, columns = np.mgrid[2:HEIGHT:4, 2:WIDTH:4].astype(np.float32)
    bend = rng.uniform(-12, 22) * ((columns - WIDTH / 2) / (WIDTH / 2)) ** 2

    def cast(most: float) -> Array:  # warm or cool, never pink or green
        warmth = rng.uniform(-most, most)
        return np.array((1 + warmth, 1 + 0.2 * warmth, 1 - warmth))

    wall_tint = cast(0.01) * rng.uniform(228, 246)
    floor_tint = cast(0.02) * rng.uniform(160, 205)
    disc_tint = cast(0.025) * rng.uniform(0.93, 1.05) * floor_tint
    down = (rows - base - bend) / (HEIGHT - base)
    lit = 1 + rng.uniform(0.0, 0.10) * np.exp(-((down / 0.10) ** 2)) - 0.06 * np.clip(-down, 0, 1)
    aside = 2 * (columns / WIDTH - rng.uniform(0.4, 0.6))
    lit *= 1 - rng.uniform(0.02, 0.08) * aside**2
    ground = 0.96 + rng.uniform(-0.10, 0.12) * down
    wall, floor, disc = (x[None, None, :] for x in (wall_tint, floor_tint, disc_tint))
    depth = camera.height * camera.focal / np.maximum(rows - camera.horizon, 1)
    x, y = (columns - camera.centre) * depth / camera.focal, depth - camera.distance
    on_disc = smoothstep(3.16, 3.10, np.hypot(x, y))[..., None]
    image = (floor + (disc - floor) * on_disc) * ground[..., None]
    blotches = rng.normal(0, 1, (9, 13)).astype(np.float32)
    blotches = Image.fromarray(blotches).resize(rows.shape[::-1], Image.Resampling.BICUBIC)
    image += rng.uniform(1, 4) * np.array(blotches)[..., None]
    image += (wall * lit[..., None] - image) * smoothstep(0.003, -0.003, down)[..., None]
    image = Image.fromarray(np.clip(image, 0, 252).astype(np.uint8))
    image = image.resize((SCALE * WIDTH, SCALE * HEIGHT), Image.Resampling.BICUBIC)
    draw_wall(image, camera, base, rng)
    draw_floor(image, camera, base, rng)
    return soften(image)


def draw_wall(image: Image.Image, camera: Camera, base: float, rng: Rng) -> None:
    """Add wordmark, door frame and light stands to the wall, on a doubled image."""
    ink = tuple((rng.integers(62, 112) + rng.integers(-4, 5, 3)).tolist())
    size = SCALE * rng.uniform(290, 340)
    font = ImageFont.load_default(size)
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    left, foot = SCALE * rng.uniform(20, 140), SCALE * (base - rng.uniform(2, 30))
    for word, stroke in zip(WORDMARK, (0.0, size * 0.035), strict=True):
        for letter in word:
            draw.text((left, foot), letter, 255, font, "ls", stroke_width=stroke)
            left += font.getlength(letter) + size * 0.14 + 2 * stroke
    image.paste(ink, (0, 0), mask)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        x, width = SCALE * rng.uniform(600, 800), SCALE * rng.uniform(400, 520)
        top = SCALE * (base - rng.uniform(240, 320))
        line = [(x, SCALE * base), (x, top), (x + width, top), (x + width, SCALE * base)]
        draw.line(line, (176, 174, 170), 3)
    for x in rng.uniform(0, WIDTH, rng.choice([0, 0, 1, 2])):
        if 0.2 < x / WIDTH < 0.8:
            continue
        x, grey = SCALE * x, int(rng.integers(20, 90))
        top = SCALE * (base - rng.uniform(200, 480))
        draw.line((x, top, x, SCALE * (base + 25)), (grey,) * 3, 8)
        for reach in (-50, 0, 50):
            draw.line((x, SCALE * (base - 30), x + reach, SCALE * (base + 40)), (grey,) * 3, 7)
        draw.rounded_rectangle((x - 60, top - 130, x + 60, top), 12, (grey,) * 3)
        draw.rectangle((x - 46, top - 116, x + 46, top - 14), (250, 249, 245))


def draw_floor(image: Image.Image, camera: Camera, base: float, rng: Rng) -> None:
    """Add the table's rim, scratches, tape and the edge of the stage, on a doubled image."""
    draw = ImageDraw.Draw(image)
    turn = np.linspace(0, 2 * np.pi, 241)
    rim = np.stack((3.13 * np.cos(turn), 3.13 * np.sin(turn), 0 * turn), axis=1)
    grey = int(rng.integers(70, 150))
    line = SCALE * np.stack(camera.project(rim), axis=1)
    draw.line(line.ravel().tolist(), (grey, grey - 3, grey - 6), int(rng.integers(3, 7)))
    for _ in range(rng.integers(4, 24)):
        place = np.array((*rng.uniform(-4, 4, 2), 0.0))
        place[1] = max(place[1], -3.5)
        way = np.array((*rng.normal(0, 0.25, 2), 0.0))
        ends = SCALE * np.stack(camera.project(np.stack((place, place + way))), axis=1)
        tone = int(rng.integers(110, 215))
        draw.line(ends.ravel().tolist(), (tone,) * 3, int(rng.integers(2, 6)))
    if rng.random() < 0.4:
        nearest = camera.project(np.array((0, -3.2, 0)))[1]
        top = SCALE * max(HEIGHT - rng.uniform(20, 130), nearest + 30)
        sag = SCALE * rng.uniform(-20, 20)
        corners = [(0, top), (SCALE * WIDTH, top + sag)]
        below = [(SCALE * WIDTH, SCALE * HEIGHT), (0, SCALE * HEIGHT)]
        tone = int(rng.integers(190, 235))
        draw.polygon([*corners, *below], fill=(tone, tone, tone - 4))
        draw.line(corners, (128, 104, 90), int(rng.integers(8, 30)))


@lru_cache(maxsize=1)
def grain_sheet() -> Image.Image:
    """Return sensor noise around 128, larger than a photograph so that it can be shifted."""
    rng = np.random.default_rng(0)
    shape = (HEIGHT + GRAIN_MARGIN, WIDTH + GRAIN_MARGIN)
    noise = rng.normal(0, 2.0, (*shape, 1)) + rng.normal(0, 0.9, (*shape, 3))
    return Image.fromarray(np.clip(128.5 + noise, 0, 255).astype(np.uint8))


def paint(corners: Array, colours: Array) -> tuple[Image.Image, Image.Image, tuple[int, int]]:
    """Paint facets in order on a clear ground.

    Args:
        corners: (n, 8), pixels.
        colours: (n, 3) uint8.

    Returns:
        The picture of what they cover of the frame, RGBA; which share of each pixel they cover,
        0 to 255; the left upper corner of both.
    """
    columns, rows = corners[:, 0::2], corners[:, 1::2]
    left, top = (max(0, math.floor(x.min()) - 1) for x in (columns, rows))
    right, bottom = min(WIDTH, math.ceil(columns.max()) + 1), min(HEIGHT, math.ceil(rows.max()) + 1)
    canvas = Image.new("RGBA", (SCALE * (right - left), SCALE * (bottom - top)))
    draw = ImageDraw.Draw(canvas)
    polygons = (SCALE * (corners - np.tile((left, top), 4))).tolist()
    for polygon, colour in zip(polygons, colours.tolist(), strict=True):
        draw.polygon(polygon, (*colour, 255))
    return soften(canvas), canvas.getchannel("A").reduce(SCALE), (left, top)


def render(car_seed: int, view: int) -> tuple[Array, Array]:
    """Render a photograph of a made-up car and its mask.

    Args:
        car_seed: names the car, from 0.
        view: 1 to 16, a sixteenth of a turn apart; 1 shows the nose, 5 a side.

    Returns:
        The photograph, (1280, 1918, 3) uint8 RGB, and the mask, (1280, 1918) bool: pixels more
        than half covered by the car. Its shadow is not part of it.

    Raises:
        ValueError: no such view, or a negative seed.
    """
    if not 1 <= view <= VIEWS or car_seed < 0:
        raise ValueError(f"car {car_seed} view {view}: views run from 1 to {VIEWS}, cars from 0")
    here = stage(car_seed)
    photo = ImageChops.multiply(here.backdrop, Image.merge("RGB", [here.floor_marks(view)] * 3))
    car, covered, corner = paint(*here.facets(view))
    photo.paste(car, corner, car)
    left, top = np.random.default_rng([car_seed, 2, view]).integers(0, GRAIN_MARGIN, 2).tolist()
    grain = grain_sheet().crop((left, top, left + WIDTH, top + HEIGHT))
    mask = Image.new("L", photo.size)
    mask.paste(covered, corner)
    # Four samples a pixel: 128 is exactly half.
    return np.asarray(ImageChops.add(photo, grain, 1, -128)), np.asarray(mask) > 128


# ------------------------------------------------------------------------------------ competition


@dataclass(frozen=True)
class Shot:
    """One photograph with its mask, encoded as the competition hands them out."""

    name: str
    jpeg: bytes
    gif: bytes
    runs: str


def shoot(car_seed: int) -> list[Shot]:
    """Photograph a car from all sides."""
    shots = []
    for view in range(1, VIEWS + 1):
        photo, mask = render(car_seed, view)
        jpeg, gif = io.BytesIO(), io.BytesIO()
        Image.fromarray(photo).save(jpeg, **JPEG)
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette((0, 0, 0, 255, 255, 255))
        picture.save(gif, "GIF")
        name = f"{car_seed:012x}_{view:02d}"
        shots.append(Shot(name, jpeg.getvalue(), gif.getvalue(), rle.encode(mask)))
    return shots


def write_competition(folder: Path, train_cars: int, test_cars: int, seed: int) -> None:
    """Write what Kaggle would hand out, of made-up cars, and the solution it would keep.

    Writes `train.zip`, `train_masks.zip`, `train_masks.csv.zip`, `test.zip`,
    `sample_submission.csv.zip` and `solution.csv` (`img,rle_mask,Usage`). Does nothing where the
    folder already holds the same competition, whole.

    Args:
        folder: made if absent.
        train_cars: 16 photographs each, from 1.
        test_cars: other cars than those, from 1.
        seed: from 0; the same arguments give the same files.

    Raises:
        UsageError: a number is out of range.
        CarvanaError: a file cannot be written, or a process that renders was ended.
    """
    if min(train_cars, test_cars) < 1 or seed < 0:
        raise UsageError(
            f"{train_cars} train cars, {test_cars} test cars, seed {seed}: give at least one car "
            "of each and a seed from 0"
        )
    folder = Path(folder)
    marker = folder / MARKER
    wanted = {"version": VERSION, "train_cars": train_cars, "test_cars": test_cars, "seed": seed}
    if _holds(marker, wanted):
        return
    marker.unlink(missing_ok=True)  # from here on the folder is not complete
    rng = np.random.default_rng(seed)
    count = train_cars + test_cars
    cars = list(dict.fromkeys(rng.integers(0, 16**12, 2 * count + 8).tolist()))[:count]
    cars = sorted(cars[:train_cars]) + sorted(cars[train_cars:])
    with _shots(cars) as shots:
        shots = progress(shots, "render", count * VIEWS)
        _write_train(folder, itertools.islice(shots, train_cars * VIEWS))
        _write_test(folder, shots, rng)
    sizes = {name: (folder / name).stat().st_size for name in FILES}
    write_text(marker, json.dumps(wanted | {"bytes": sizes}, indent=2) + "\n")


def _holds(marker: Path, wanted: dict) -> bool:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        sizes = {name: (marker.parent / name).stat().st_size for name in FILES}
    except (OSError, ValueError):
        return False
    return found == wanted | {"bytes": sizes}


def _leave_interrupt_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _shots(cars: list[int]) -> Iterator[Iterator[Shot]]:
    """Yield the shots of cars, in order, rendered on all cores."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(len(cars), os.cpu_count() or 1),
        # Forking would copy the locks of whatever threads run in the caller (TensorFlow's).
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupt_to_parent,
    )
    try:
        yield itertools.chain.from_iterable(pool.map(shoot, cars))
    except BrokenProcessPool as error:
        raise CarvanaError(
            "a process that renders was ended (out of memory?); run the same command again"
        ) from error
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # each has cars in hand that nobody waits for any more
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        yield archive


def _add(archive: zipfile.ZipFile, name: str, data: bytes | str, method=zipfile.ZIP_STORED) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980, so that the same cars give the same bytes
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, method)


def _write_csv(path: Path, header: list[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Write a CSV, inside a zip where the path ends so."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    if path.suffix == ".zip":
        with _archive(path) as archive:
            _add(archive, path.stem, text.getvalue(), zipfile.ZIP_DEFLATED)
    else:
        write_text(path, text.getvalue())


def _write_train(folder: Path, shots: Iterable[Shot]) -> None:
    rows = []
    with _archive(folder / "train.zip") as photos, _archive(folder / "train_masks.zip") as masks:
        for shot in shots:
            _add(photos, f"train/{shot.name}.jpg", shot.jpeg)
            _add(masks, f"train_masks/{shot.name}_mask.gif", shot.gif)
            rows.append((f"{shot.name}.jpg", shot.runs))
    _write_csv(folder / "train_masks.csv.zip", HEADER, rows)


def _write_test(folder: Path, shots: Iterable[Shot], rng: Rng) -> None:
    rows = []
    with _archive(folder / "test.zip") as photos:
        for shot in shots:
            _add(photos, f"test/{shot.name}.jpg", shot.jpeg)
            rows.append((f"{shot.name}.jpg", shot.runs))
    sample = ((name, "1 1") for name, _ in rows)
    _write_csv(folder / "sample_submission.csv.zip", HEADER, sample)
    public = rng.permutation(len(rows)) < round(PUBLIC_SHARE * len(rows))
    usage = np.where(public, "Public", "Private").tolist()
    solution = ((*row, kind) for row, kind in zip(rows, usage, strict=True))
    _write_csv(folder / "solution.csv", [*HEADER, "Usage"], solution)
