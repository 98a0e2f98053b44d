import keras
import pytest
import tensorflow as tf

from carvana.networks.build import NETWORKS, build_network, choose_precision, precision_of
from carvana.recipe import load_recipe
from conftest import TINY, TINY_PYRAMID

RECIPES = {"unet": load_recipe("blog", TINY), "pyramid_unet": load_recipe("sharp", TINY_PYRAMID)}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_in_the_precision_asked_for_and_remembers_it(name, precision):
    recipe = RECIPES[name]
    network = build_network(recipe, precision)
    assert precision_of(network) == precision
    size = recipe.input.height, recipe.input.width
    assert network.input_shape == (None, *size, 3)
    assert network.output_shape == (None, *size, 1)
    assert network.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # the policy outside is as before


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
