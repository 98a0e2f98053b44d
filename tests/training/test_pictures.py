import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from carvana.backend import keras, tf
from carvana.networks.build import load_network
from carvana.recipe import load_recipe
from carvana.training import train
from carvana.training.pictures import WIDTH
from conftest import TINY


def shown_in(logs):
    """Return TensorBoard's pictures: by name, that of each epoch."""
    events = EventAccumulator(str(logs), size_guidance={"tensors": 0}).Reload()
    found = {}
    for name in events.Tags()["tensors"]:
        for event in events.Tensors(name):
            _, _, png = event.tensor_proto.string_val
            found.setdefault(name, {})[event.step] = tf.io.decode_png(png).numpy()
    return found


def test_tensorboard_shows_masks_and_training_stays_the_same(tiny, tmp_path, monkeypatch):
    recipe = load_recipe("blog", [*TINY, "input.width=288"])  # with dropout
    train.train(recipe, tiny.root, tmp_path / "with")
    monkeypatch.setattr(train, "MaskImages", lambda *_: keras.callbacks.Callback())
    train.train(recipe, tiny.root, tmp_path / "without")
    runs = [tmp_path / "with", tmp_path / "without"]
    histories = [pd.read_csv(run / "history.csv").drop(columns="seconds") for run in runs]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    networks = [load_network(run / "model.keras", "float32") for run in runs]
    variables = [[*network.weights, *network.optimizer.variables] for network in networks]
    for one, other in zip(*variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())

    assert not (tmp_path / "without" / "logs" / "masks").exists()
    shown = shown_in(tmp_path / "with" / "logs" / "masks")
    assert len(shown) == 3
    for name, pictures in shown.items():
        assert name.startswith("photograph, truth, prediction/car")
        assert list(pictures) == [0, 1]
        first, last = (np.split(picture, 3, axis=1) for picture in pictures.values())
        assert all(picture.shape == (round(32 * WIDTH / 288), WIDTH, 3) for picture in last)
        photograph, truth, prediction = last
        assert photograph.std() > 20
        assert {0, 255} <= set(np.unique(truth))
        np.testing.assert_array_equal(first[:2], last[:2])
        assert (first[2] != prediction).any()
