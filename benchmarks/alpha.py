"""Compare the alpha of cutouts with the raw probability on rendered cars, whose alpha is known.

    python benchmarks/alpha.py --weights sharp --weights sharper

It prints the mean absolute error of both within 8 pixels of the car's edge.
"""

import argparse

import cv2
import numpy as np

import carvana
from carvana.competition.facts import HEIGHT, VIEWS, WIDTH
from carvana.prediction.cutout import estimate_alpha
from carvana_sandbox.cars.studio import paint, render, softened, stage

BAND = 8  # pixels
FIRST = 60  # car


def draw(car: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph and the alpha with which its car was painted, 0 to 1."""
    view = 1 + 5 * car % VIEWS
    photograph, _ = render(car, view)
    painted, place = paint(*stage(car).facets(view))
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[place] = softened(cv2.inRange(painted, (1, 1, 1), (255, 255, 255))) / np.float32(255)
    return photograph, alpha


def near_edge(mask: np.ndarray) -> np.ndarray:
    """Return which pixels lie within BAND of a mask's edge."""
    sides = [cv2.distanceTransform(np.uint8(side), cv2.DIST_L2, 5) for side in (mask, ~mask)]
    return sum(sides) <= BAND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", action="append", help="weights or a run's folder; repeatable")
    parser.add_argument("--count", type=int, default=8, help="cars")
    options = parser.parse_args()
    photographs, truths = zip(*map(draw, range(FIRST, FIRST + options.count)), strict=True)
    for name in options.weights or ["sharp", "sharper"]:
        errors = []
        predicted = carvana.load(name).predict(photographs)
        for (_, probability), truth in zip(predicted, truths, strict=True):
            band = near_edge(truth > 0.5)
            alpha = estimate_alpha(probability) / np.float32(255)
            errors.append([abs(each - truth)[band].mean() for each in (probability, alpha)])
        before, after = np.mean(errors, axis=0)
        print(f"{name}: probability {before:.4f}, alpha {after:.4f} ({after / before:.0%})")


if __name__ == "__main__":
    main()
