import io

import numpy as np
import pytest

from carvana.errors import CarvanaError
from carvana.networks import encoder
from carvana.networks.build import load_network
from carvana.networks.encoder import imagenet_encoder


def test_features_are_those_of_the_original_weights_at_four_strides_and_frozen():
    model = imagenet_encoder((64, 96, 3))
    assert not model.trainable_variables
    picture = np.arange(64 * 96 * 3, dtype=np.float32).reshape(1, 64, 96, 3) * 0.37 % 1
    features = [feature.numpy() for feature in model(picture)]
    shapes = [(16, 24, 24), (8, 12, 48), (4, 6, 120), (2, 3, 352)]
    assert [feature.shape[1:] for feature in features] == shapes
    # As computed from the authors' file, before its batch norm was folded in.
    means = [np.abs(feature).mean() for feature in features]
    np.testing.assert_allclose(means, [9.6730, 7.4866, 4.3778, 1.7186], rtol=1e-4)
    shallow = imagenet_encoder((64, 96, 3), levels=2)(picture)
    for few, all_ in zip(shallow, features[:2], strict=True):
        np.testing.assert_allclose(few, all_, atol=1e-4)


def test_it_stays_frozen_when_it_is_saved_and_loaded(tmp_path):
    model = imagenet_encoder((32, 48, 3), levels=1)
    model.save(tmp_path / "m.keras")
    loaded = load_network(tmp_path / "m.keras")
    assert not loaded.trainable_variables
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_are_absent_or_broken_are_named(tmp_path, monkeypatch):
    whole = encoder.WEIGHTS.read_bytes()
    path = tmp_path / "w.npz"
    monkeypatch.setattr(encoder, "WEIGHTS", path)
    flipped = whole[:100_000] + bytes([whole[100_000] ^ 1]) + whole[100_001:]
    pickled = io.BytesIO()
    np.savez(pickled, a=np.array([print], object))  # anything but numbers is not unpickled
    for content in (None, b"", b"text", whole[: len(whole) // 2], flipped, pickled.getvalue()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CarvanaError, match=r"w\.npz: cannot be read.* install the kit again"):
            imagenet_encoder((64, 96, 3))
