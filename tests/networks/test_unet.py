import numpy as np
import pytest
from keras import layers

from carvana.networks.unet import unet


@pytest.fixture(scope="module")
def published():
    return unet((128, 128, 3))


def test_layers_and_parameters_are_the_published_ones(published):
    kinds = [type(layer).__name__ for layer in published.layers]
    block = ["Conv2D", "Conv2D"]
    down, up = [*block, "MaxPooling2D"] * 4, ["Conv2DTranspose", "Concatenate", *block] * 4
    assert kinds == ["InputLayer", *down, "Dropout", *block, *up, "Conv2D"]
    assert published.output_shape == (None, 128, 128, 1)
    filters = [layer.filters for layer in published.layers if type(layer) is layers.Conv2D]
    assert filters[:10:2] == [64, 128, 256, 512, 1024]
    assert published.count_params() == 31_031_745
    assert sum(int(np.prod(w.shape)) for w in published.trainable_weights) == 31_031_745


def test_blocks_are_as_published(published):
    convolutions = [layer for layer in published.layers if type(layer) is layers.Conv2D]
    for layer in convolutions[:-1]:
        assert (layer.kernel_size, layer.padding) == ((3, 3), "same")
        assert layer.activation.__name__ == "relu"
        assert type(layer.kernel_initializer).__name__ == "HeNormal"
    assert convolutions[-1].activation.__name__ == "sigmoid"
    for layer in published.layers:
        if type(layer) is layers.Conv2DTranspose:
            assert (layer.kernel_size, layer.strides) == ((2, 2), (2, 2))
            assert layer.activation.__name__ == "linear"
        if type(layer) is layers.Dropout:
            assert layer.rate == 0.5


def test_skip_comes_first_in_the_concatenation(published):
    for layer in published.layers:
        if type(layer) is layers.Concatenate:
            makers = [tensor._keras_history.operation for tensor in layer.input]
            assert [type(maker) for maker in makers] == [layers.Conv2D, layers.Conv2DTranspose]


@pytest.mark.parametrize(
    ("shape", "named"),
    [((100, 128, 3), "height 100"), ((128, 72, 3), "width 72"), ((8, 16, 3), "")],
)
def test_indivisible_size_is_refused_with_the_sizes_to_use(shape, named):
    with pytest.raises(ValueError, match=f"{named}.*not divisible by 16.*use "):
        unet(shape)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        unet((32, 32, 3), num_layers=0)
