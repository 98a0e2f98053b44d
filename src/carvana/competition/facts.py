"""Facts of the competition, and where its files lie under a data folder."""

from pathlib import Path

SLUG = "carvana-image-masking-challenge"
WIDTH, HEIGHT = 1918, 1280  # of every photograph and mask
VIEWS = 16  # photographs of each car, 22.5 degrees apart
TRAIN_IMAGES = 5_088
TEST_IMAGES = 100_064
TEAMS = 735  # on the private leaderboard
# Known places of that board and their scores, for when the board cannot be fetched.
ANCHORS = ((1, 0.997332), (511, 0.988423), (TEAMS, 0.0))


class Paths:
    """Where each file of the competition lies under the data folder `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.train = root / "train"
        self.train_masks = root / "train_masks"
        self.test = root / "test"
        self.train_masks_csv = root / "train_masks.csv"
        self.sample_submission = root / "sample_submission.csv"
        self.cache = root / "cache"


def car_of(name: str) -> str:
    """Return the car a photograph shows: `00087a6bd4dc` of `00087a6bd4dc_01.jpg`."""
    return Path(name).stem.rpartition("_")[0]


def view_of(name: str) -> str:
    """Return the view a photograph is taken from: `01` of `00087a6bd4dc_01.jpg`."""
    return Path(name).stem.rpartition("_")[2]
