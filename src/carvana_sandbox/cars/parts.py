"""The parts a made-up car is built of: wheels, lights, windows, mirrors; and the whole car.

A car is two lofted shells (body and greenhouse), four wheels, and details laid on them as patches.
"""

import itertools
import math

import numpy as np

from carvana_sandbox.cars.geometry import (
    BACK,
    BODY,
    CABIN,
    DETAIL,
    FRONT,
    GLASS,
    TRIM,
    WHEEL,
    Array,
    Material,
    Mesh,
    Rng,
    Shell,
    Surface,
    ball,
    box,
    oval,
    patch,
    tube,
)
from carvana_sandbox.cars.styles import (
    AMBER,
    BLACK,
    CHROME,
    CLADDING,
    INK,
    LAMP,
    LENS,
    PAINTS,
    PLATE,
    RED,
    RUBBER,
    STYLE_SHARES,
    STYLES,
    WELL,
    Style,
    shells,
    vary,
)


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
