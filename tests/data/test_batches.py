import cv2
import numpy as np
import pytest
import tensorflow as tf

from carvana.data import batches, prepared
from carvana.data.augment import apply, draw
from carvana.data.pairs import find_pairs
from carvana.recipe import load_recipe
from conftest import DATA, TINY, TINY_PYRAMID, prepare_and_read


def test_each_pass_has_every_image_once_and_no_two_passes_are_alike():
    drawn = [batches.training_batch(number, 10, 4, seed=5) for number in range(6)]
    assert [len(indices) for indices, _ in drawn] == [4, 4, 2, 4, 4, 2]
    passes = [np.concatenate([i for i, _ in drawn[k : k + 3]]) for k in (0, 3)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0].tolist() != passes[1].tolist()
    seeds = np.concatenate([s for _, s in drawn])
    assert len(np.unique(seeds, axis=0)) == 20


def test_datasets_keep_image_and_mask_together_and_augment_training_alone(tiny):
    recipe = load_recipe("blog", TINY)
    pairs = find_pairs(tiny.root, DATA)
    images, masks = prepare_and_read(pairs, tiny, recipe)
    files = prepared.prepare(pairs, tiny.cache, recipe)
    order = batches.training_batch(0, 20, 8, recipe.training.seed)
    batch, truth = next(iter(batches.training_dataset(files, recipe)))
    np.testing.assert_array_equal(truth, masks[order[0]])
    for got, index, seed in zip(batch, *order, strict=True):
        pair = np.concatenate((images[index], masks[index]), axis=-1)
        want, _ = apply(pair, draw(seed, recipe.augment, *pair.shape[:2]))
        np.testing.assert_allclose(got, want, atol=1e-6)
    plain = list(batches.validation_dataset(files, recipe))
    assert [len(batch) for batch, _ in plain] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([b for b, _ in plain]), images)


def test_out_of_memory_is_not_taken_for_a_broken_file(tiny, monkeypatch):
    def run_out_of_memory(*_):
        cv2.resize(np.zeros((1, 1), np.uint8), (2**30, 2**30))

    recipe = load_recipe("blog", TINY)
    files = prepared.prepare(find_pairs(tiny.root, DATA), tiny.cache, recipe)
    monkeypatch.setattr(batches, "apply", run_out_of_memory)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        next(iter(batches.training_dataset(files, recipe)))


def test_shrunk_pictures_are_means_of_their_pixels(tiny):
    recipe = load_recipe("sharp", TINY_PYRAMID)
    pairs = find_pairs(tiny.root, DATA)[:3]
    files = prepared.prepare(pairs, tiny.cache, recipe)
    (image, mask), *_ = batches.validation_dataset(files, recipe, shrink=2)
    images, masks = prepare_and_read(pairs, tiny, recipe)
    for got, whole in ((image, images), (mask, masks)):
        want = whole.reshape(3, 16, 2, 24, 2, -1).mean((2, 4)) / 255
        np.testing.assert_allclose(got, want, atol=0.51 / 255)
