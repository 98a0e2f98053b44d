import keras
import numpy as np
import pytest
import tensorflow as tf

from carvana.networks import build
from carvana.networks.build import NETWORKS, build_network, choose_precision
from carvana.recipe import load_recipe
from conftest import TINY, TINY_PYRAMID

RECIPES = {"unet": load_recipe("blog", TINY), "pyramid_unet": load_recipe("sharp", TINY_PYRAMID)}


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_gives_float32_probabilities_close_to_float32s(name):
    recipe = RECIPES[name]
    whole, mixed = (build_network(recipe, each) for each in ("float32", "mixed_bfloat16"))
    assert any(layer.compute_dtype == "bfloat16" for layer in mixed.layers)
    mixed.set_weights(whole.get_weights())
    size = recipe.input.height, recipe.input.width
    picture = np.random.default_rng(0).random((2, *size, 3), np.float32)
    got, want = (network(picture).numpy() for network in (mixed, whole))
    assert got.dtype == np.float32
    assert got.shape == (2, *size, 1)
    np.testing.assert_allclose(got, want, atol=0.02)
    short = keras.ops.convert_to_numpy(keras.ops.cast(got, "bfloat16"))
    assert np.any(short.astype(np.float32) != got)  # they are not 16-bit ones made longer


def test_precision_follows_the_hardware(monkeypatch):
    assert choose_precision("float32") == "float32"
    gpu = tf.config
    monkeypatch.setattr(gpu, "list_physical_devices", lambda kind: ["gpu"])
    for capability, policy in (
        ((6, 1), "float32"),
        ((7, 5), "mixed_float16"),
        ((8, 0), "mixed_bfloat16"),
        ((12, 0), "mixed_bfloat16"),
    ):
        details = {"compute_capability": capability}
        monkeypatch.setattr(gpu.experimental, "get_device_details", lambda _, d=details: d)
        assert choose_precision("auto") == policy


@pytest.mark.parametrize(
    "processor, policy",
    [
        ("GenuineIntel avx512_bf16 amx_bf16", "mixed_bfloat16"),
        ("GenuineIntel avx512_bf16", "float32"),  # 1.4 to 1.7 times as fast, on an Emerald Rapids
        ("AuthenticAMD avx512_bf16", "mixed_bfloat16"),
        ("AuthenticAMD avx2", "float32"),
        ("", "float32"),
    ],
)
def test_auto_is_bfloat16_only_on_processors_that_are_faster_at_it(monkeypatch, processor, policy):
    monkeypatch.setattr(build, "cpuinfo", lambda: processor)
    monkeypatch.setattr(build.tf.config, "list_physical_devices", lambda kind: [])
    assert choose_precision("auto") == policy
