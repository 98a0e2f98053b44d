"""Kinds of made-up cars: their measures, paints and materials, and the shells drawn from them."""

from dataclasses import dataclass, replace

import numpy as np

from carvana_sandbox.cars.geometry import Material, Rng, Shell, curve


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
