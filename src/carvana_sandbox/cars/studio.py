"""Photograph a made-up car: camera, light, wall and floor, and the exact mask.

The studio, the camera and the paint are drawn from the car's seed; the view turns the table.
Facets are painted back to front at twice the size, and the coverage of the same facets is the
mask, so photograph and mask agree to the pixel.

World frame, in metres: the camera stands at y = -distance and looks along +y; the table's centre
is the origin.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from carvana.competition.facts import HEIGHT, VIEWS, WIDTH
from carvana.data.pairs import evenly
from carvana_sandbox.cars.geometry import BACK, Array, Rng
from carvana_sandbox.cars.parts import build_car

WORDMARK = ("SAND", "BOX")  # on the wall: thin letters, then bold ones
SCALE = 2  # supersampling
GRAIN_MARGIN = 256  # pixels the sheet of sensor noise can be shifted by


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
        self.centres = self.corners.mean(axis=1)
        self.middle = np.array((self.style.length / 2, 0, 0), dtype=np.float32)
        self.middle[0] += rng.uniform(-0.15, 0.15)  # never exactly on the centre
        self.middle[1] += rng.uniform(-0.1, 0.1)
        self.camera = aim(rng)
        self.seams = rng.uniform(0, np.pi), int(rng.integers(2, 6)), rng.uniform(0.75, 0.93)
        self.shadow = rng.uniform(0.55, 0.8)
        self.backdrop = draw_backdrop(self.camera, rng)

    def facets(self, view: int) -> tuple[Array, Array]:
        """Return the visible facets, far to near: corners (n, 4, 2) in pixels, colours (n, 3)."""
        turn = turned(view)
        eye = np.array((0, -self.camera.distance, self.camera.height), dtype=np.float32)
        in_car = eye @ turn
        rays = in_car + self.middle - self.centres
        seen = np.flatnonzero(np.sum(self.normals * rays, axis=1) > 0)
        rays, looks = rays[seen], self.looks[seen]
        depth = np.linalg.norm(rays, axis=1)
        layer = np.where(looks[:, 7:9] @ in_car[:2] > looks[:, 9], looks[:, 6], BACK)
        order = np.lexsort((-depth, layer))
        seen, looks = seen[order], looks[order, :6]
        to_camera = (rays[order] / depth[order, None]) @ turn.T
        colours = shade(self.normals[seen] @ turn.T, to_camera, self.centres[seen, 2], looks)
        corners = (self.corners[seen] - self.middle) @ turn.T
        return np.stack(self.camera.project(corners), axis=2), colours

    def footprint(self, view: int, grow: float) -> Array:
        """Return the car's outline on the floor, (n, 2) pixels."""
        a = np.linspace(0, 2 * np.pi, 41)
        x = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.4 * (self.style.length / 2 + grow - 0.1)
        y = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.4 * (self.style.width / 2 + grow)
        offset = self.middle[:2] - (self.style.length / 2, 0)
        floor = np.stack((x - offset[0], y - offset[1], 0 * x), axis=1) @ turned(view).T
        return np.stack(self.camera.project(floor), axis=1)

    def floor_marks(self, view: int) -> Array:
        """Return how much light the floor keeps, (HEIGHT, WIDTH): the car's shadow, the seams."""
        eighth = np.full((HEIGHT // 8, WIDTH // 8 + 1), 255, np.uint8)
        for grow, blur, strength in ((0.35, 7, 0.30), (0.05, 3, 0.55), (-0.12, 1.2, 0.75)):
            layer = np.full_like(eighth, 255)
            keep = round(255 * (1 - strength * self.shadow))
            cv2.fillPoly(layer, [pixels(self.footprint(view, grow) / 8)], keep)
            eighth = multiplied(eighth, cv2.GaussianBlur(layer, (0, 0), blur))
        start, count, keep = self.seams
        lines = np.full((SCALE * HEIGHT, SCALE * WIDTH), 255, np.uint8)
        for k in range(count):
            angle = start + np.pi * k / count - math.radians(22.5 * (view - 1))
            ends = 3.1 * np.outer((-1, 1), (np.cos(angle), np.sin(angle), 0))
            near, far = pixels(SCALE * np.stack(self.camera.project(ends), axis=1)).tolist()
            cv2.line(lines, near, far, round(255 * keep), 3)
        marks = cv2.resize(eighth, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        return multiplied(marks, reduced(lines))


def pixels(points: Array) -> Array:
    """Return the pixels that hold points, whole numbers."""
    return np.floor(points).astype(np.int32)


def multiplied(picture: Array, share: Array) -> Array:
    """Multiply two pictures, where 255 is the whole."""
    if picture.ndim > share.ndim:
        share = cv2.merge([share] * picture.shape[2])
    return cv2.multiply(picture, share, scale=1 / 255)


def reduced(picture: Array) -> Array:
    """Bring a doubled picture to size."""
    size = picture.shape[1] // SCALE, picture.shape[0] // SCALE
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def softened(picture: Array) -> Array:
    """Bring a doubled picture to size, a little out of focus, as a lens would."""
    return cv2.GaussianBlur(reduced(picture), (3, 3), 0.43)  # (1, 14, 1) / 16 either way


def draw_backdrop(camera: Camera, rng: Rng) -> Array:
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
    image = np.clip(image, 0, 252).astype(np.uint8)
    doubled = SCALE * WIDTH, SCALE * HEIGHT
    image = Image.fromarray(cv2.resize(image, doubled, interpolation=cv2.INTER_CUBIC))
    draw_wall(image, camera, base, rng)
    draw_floor(image, camera, base, rng)
    return softened(np.asarray(image))


def draw_wall(image: Image.Image, camera: Camera, base: float, rng: Rng) -> None:
    """Add wordmark, door frame and light stands to the wall, on a doubled image."""
    ink = tuple((rng.integers(62, 112) + rng.integers(-4, 5, 3)).tolist())
    size = SCALE * rng.uniform(290, 340)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image)
    left, foot = SCALE * rng.uniform(20, 140), SCALE * (base - rng.uniform(2, 30))
    for word, stroke in zip(WORDMARK, (0.0, size * 0.035), strict=True):
        for letter in word:
            draw.text((left, foot), letter, ink, font, "ls", stroke_width=stroke)
            left += font.getlength(letter) + size * 0.14 + 2 * stroke
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
def grain_sheet() -> Array:
    """Return sensor noise around 128, larger than a photograph so that it can be shifted."""
    rng = np.random.default_rng(0)
    shape = (HEIGHT + GRAIN_MARGIN, WIDTH + GRAIN_MARGIN)
    noise = rng.normal(0, 2.0, (*shape, 1)) + rng.normal(0, 0.9, (*shape, 3))
    return np.clip(128.5 + noise, 0, 255).astype(np.uint8)


def paint(corners: Array, colours: Array) -> tuple[Array, tuple[slice, slice]]:
    """Paint facets in order on a clear, doubled ground.

    Args:
        corners: (n, 4, 2), pixels of the photograph.
        colours: (n, 3) uint8.

    Returns:
        (2 height, 2 width, 3) uint8, 0 where there is no facet and nowhere else. And the rows and
        columns of the photograph that it covers.
    """
    size = np.array((WIDTH, HEIGHT))
    start = np.clip(np.floor(corners.min(axis=(0, 1))).astype(int) - 1, 0, size)
    stop = np.clip(np.ceil(corners.max(axis=(0, 1))).astype(int) + 1, 0, size)
    width, height = (SCALE * (stop - start)).tolist()
    canvas = np.zeros((height, width, 3), np.uint8)
    colours = np.maximum(colours, 1).tolist()
    for polygon, colour in zip(pixels(SCALE * (corners - start)), colours, strict=True):
        cv2.fillConvexPoly(canvas, polygon, colour)
    columns, rows = map(slice, start, stop)
    return canvas, (rows, columns)


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
    photo = multiplied(here.backdrop, here.floor_marks(view))
    painted, place = paint(*here.facets(view))
    covered = cv2.inRange(painted, (1, 1, 1), (255, 255, 255))  # 255 where there is a facet
    ground = multiplied(photo[place], 255 - softened(covered))
    photo[place] = cv2.add(ground, softened(painted))
    left, top = np.random.default_rng([car_seed, 2, view]).integers(0, GRAIN_MARGIN, 2).tolist()
    grain = grain_sheet()[top : top + HEIGHT, left : left + WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[place] = reduced(covered) > 128  # of four samples: 128 is exactly half
    return cv2.addWeighted(photo, 1, grain, 1, -128), mask


def render_some(count: int) -> list[Array]:
    """Render photographs of two cars, 32 at most, from all sides."""
    shots = [(car, view) for car in (1, 2) for view in range(1, VIEWS + 1)]
    return [render(*shot)[0] for shot in evenly(shots, count)]
