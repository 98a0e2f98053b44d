import numpy as np
import pytest
from keras import layers

from carvana.networks.unet import unet

# The reference's layer table: kind, output side, filters, parameters.
PUBLISHED = [
    ("InputLayer", 128, 3, 0),
    ("Conv2D", 128, 64, 1_792),
    ("Conv2D", 128, 64, 36_928),
    ("MaxPooling2D", 64, 64, 0),
    ("Conv2D", 64, 128, 73_856),
    ("Conv2D", 64, 128, 147_584),
    ("MaxPooling2D", 32, 128, 0),
    ("Conv2D", 32, 256, 295_168),
    ("Conv2D", 32, 256, 590_080),
    ("MaxPooling2D", 16, 256, 0),
    ("Conv2D", 16, 512, 1_180_160),
    ("Conv2D", 16, 512, 2_359_808),
    ("MaxPooling2D", 8, 512, 0),
    ("Dropout", 8, 512, 0),
    ("Conv2D", 8, 1024, 4_719_616),
    ("Conv2D", 8, 1024, 9_438_208),
    ("Conv2DTranspose", 16, 512, 2_097_664),
    ("Concatenate", 16, 1024, 0),
    ("Conv2D", 16, 512, 4_719_104),
    ("Conv2D", 16, 512, 2_359_808),
    ("Conv2DTranspose", 32, 256, 524_544),
    ("Concatenate", 32, 512, 0),
    ("Conv2D", 32, 256, 1_179_904),
    ("Conv2D", 32, 256, 590_080),
    ("Conv2DTranspose", 64, 128, 131_200),
    ("Concatenate", 64, 256, 0),
    ("Conv2D", 64, 128, 295_040),
    ("Conv2D", 64, 128, 147_584),
    ("Conv2DTranspose", 128, 64, 32_832),
    ("Concatenate", 128, 128, 0),
    ("Conv2D", 128, 64, 73_792),
    ("Conv2D", 128, 64, 36_928),
    ("Conv2D", 128, 1, 65),
]


@pytest.fixture(scope="module")
def published():
    return unet((128, 128, 3))


def test_layer_table_is_the_published_one(published):
    table = [
        (type(layer).__name__, layer.output.shape[1], layer.output.shape[3], layer.count_params())
        for layer in published.layers
    ]
    assert table == PUBLISHED
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
        if type(layer) is layers.Concatenate:  # what skips comes first
            makers = [tensor._keras_history.operation for tensor in layer.input]
            assert [type(maker) for maker in makers] == [layers.Conv2D, layers.Conv2DTranspose]


@pytest.mark.parametrize(
    ("shape", "named"),
    [((100, 128, 3), "height 100"), ((128, 72, 3), "width 72"), ((8, 16, 3), "")],
)
def test_indivisible_size_is_refused_with_the_sizes_to_use(shape, named):
    with pytest.raises(ValueError, match=f"{named}.*not divisible by 16.*use "):
        unet(shape)
