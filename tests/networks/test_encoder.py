import collections
import io
import pickle
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from carvana.errors import CarvanaError
from carvana.networks import encoder
from carvana.networks.encoder import imagenet_encoder, read_weights
from carvana.recipe import load_recipe
from carvana.run import build_network, load_network
from carvana.training.train import train
from conftest import TINY_PYRAMID

CARS = {  # of ImageNet's 1,000 classes, those that are cars
    *(407, 436, 468, 511, 609, 627, 654, 656, 661, 675, 705, 717, 734, 751, 817, 864),
}
PRETRAINED = load_recipe(
    "sharper", [*TINY_PYRAMID, "input.width=64", "augment.repaint=0.0", "model.encoder_levels=2"]
)


def test_features_are_at_four_strides_and_frozen():
    model = imagenet_encoder((64, 96, 3))
    shapes = [(16, 24, 24), (8, 12, 48), (4, 6, 120), (2, 3, 352)]
    assert [feature.shape[1:] for feature in model.outputs] == shapes
    assert not model.trainable_variables
    shallow = imagenet_encoder((64, 96, 3), levels=2)
    picture = np.random.default_rng(1).random((1, 64, 96, 3), np.float32)
    for few, all_ in zip(shallow(picture), model(picture)[:2], strict=True):
        np.testing.assert_allclose(few, all_, atol=1e-4)


def test_a_folded_convolution_is_the_convolution_and_its_batch_norm():
    weights, x = read_weights(), np.random.default_rng(1).random((1, 8, 8, 3), np.float32)
    inputs = keras.Input((8, 8, 3))
    folded = keras.Model(inputs, encoder._convolve(inputs, weights, "_conv_stem", "_bn0", 2))
    plain = keras.layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)
    norm = keras.layers.BatchNormalization(epsilon=1e-3)
    norm(plain(x))
    plain.set_weights([weights["_conv_stem.weight"].transpose(2, 3, 1, 0)])
    parts = ("weight", "bias", "running_mean", "running_var")
    norm.set_weights([weights[f"_bn0.{part}"] for part in parts])
    np.testing.assert_allclose(folded(x), norm(plain(x)), atol=1e-4)


def test_it_knows_a_car_when_it_sees_one(real):
    weights, model = read_weights(), imagenet_encoder((320, 480, 3))
    gamma, beta, mean, variance = (
        weights[f"_bn1.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    with zipfile.ZipFile(real / "test.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::16]
        photographs = [Image.open(io.BytesIO(archive.read(name))) for name in names]
    assert len(photographs) == 8
    for photograph in photographs:
        picture = photograph.resize((480, 320), Image.Resampling.BOX)
        x = model(np.asarray(picture, np.float32)[None] / 255)[-1].numpy().reshape(-1, 352)
        x = (x @ weights["_conv_head.weight"][:, :, 0, 0].T - mean) / np.sqrt(variance + 1e-3)
        x = np.clip(x * gamma + beta, 0, 6).mean(0)
        assert int((weights["_fc.weight"] @ x + weights["_fc.bias"]).argmax()) in CARS


@pytest.mark.slow
def test_training_leaves_the_encoders_as_they_were(tiny, tmp_path):
    train(PRETRAINED, tiny.root, tmp_path)
    trained = load_network(tmp_path / "model.keras")
    fresh = build_network(PRETRAINED, "float32")
    assert len(trained.trainable_variables) == len(fresh.trainable_variables)
    for part in (lambda model: model, lambda model: model.get_layer("coarse")):
        ours, imagenets = (part(model).get_layer(encoder.ENCODER) for model in (trained, fresh))
        for a, b in zip(ours.get_weights(), imagenets.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    changed = zip(trained.trainable_variables, fresh.trainable_variables, strict=True)
    assert all(not np.array_equal(a, b) for a, b in changed)


def test_weights_that_are_not_installed_or_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "PACKAGE", "carvana_no_such_package")
    with pytest.raises(CarvanaError, match=r"no_such_package is not installed.*make setup"):
        build_network(PRETRAINED, "float32")
    good = read_weights
    monkeypatch.undo()
    whole = next((encoder.resources.files(encoder.PACKAGE) / "models").glob("*.pth")).read_bytes()
    monkeypatch.setattr(encoder.resources, "files", lambda package: tmp_path)
    (tmp_path / "models").mkdir()
    harm = pickle.dumps(print)  # anything but tensors is not unpickled
    order = pickle.dumps(collections.OrderedDict(a=1))
    for content in (None, b"", b"text", whole[:1000], whole[: len(whole) // 2], harm, order * 4):
        if content is not None:
            (tmp_path / "models" / "w.pth").write_bytes(content)
        with pytest.raises(CarvanaError, match="holds no readable weights"):
            good()
