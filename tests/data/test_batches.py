import numpy as np
import pytest
import tensorflow as tf

from carvana.data import batches, prepared
from carvana.data.augment import apply, draw
from carvana.data.pairs import find_pairs
from carvana.recipe import load_recipe
from conftest import DATA, TINY, TINY_PYRAMID, prepare_and_read, run_out_of_memory


def test_each_pass_has_every_image_once_and_no_two_passes_are_alike():
    drawn = [batches.training_batch(number, 10, 4, seed=5) for number in range(6)]
    assert [len(indices) for indices, _ in drawn] == [4, 4, 2, 4, 4, 2]
    passes = [np.concatenate([i for i, _ in drawn[k : k + 3]]) for k in (0, 3)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0].tolist() != passes[1].tolist()
    seeds = np.concatenate([s for _, s in drawn])
    assert len(np.unique(seeds, axis=0)) == 20


@pytest.mark.parametrize(("steps", "count"), [(1, 4), (2, 8), (3, 10), (7, 10)])
def test_a_training_shorter_than_a_pass_comes_to_the_images_of_its_batches(steps, count):
    want = np.concatenate([batches.training_batch(n, 10, 4, seed=5)[0] for n in range(steps)])
    assert batches.reached(10, 4, 5, steps) == sorted(set(want.tolist()))
    assert len(batches.reached(10, 4, 5, steps)) == count


def test_what_is_read_ahead_of_the_end_needs_no_other_images(tiny):
    recipe = load_recipe("blog", TINY)  # 20 photographs, 8 a batch
    files = prepared.prepare(find_pairs(tiny.root, DATA), tiny.cache, recipe)
    wanted = batches.reached(20, 8, recipe.training.seed, 1)
    some = [file if index in wanted else None for index, file in enumerate(files)]
    first, *ahead = batches.training_dataset(some, recipe, end=1).take(4)
    for batch in ahead:
        np.testing.assert_array_equal(batch[0], first[0])


@pytest.mark.parametrize("first", [1, 2, 3, 5])
def test_a_resumed_run_goes_on_with_the_batches_it_would_have_had(first, tiny):
    recipe = load_recipe("blog", TINY)  # 20 photographs, 8 a batch
    files = prepared.prepare(find_pairs(tiny.root, DATA), tiny.cache, recipe)
    whole = list(batches.training_dataset(files, recipe).take(6))
    rest = list(batches.training_dataset(files, recipe, first).take(6 - first))
    for got, want in zip(rest, whole[first:], strict=True):
        for got_part, want_part in zip(got, want, strict=True):
            np.testing.assert_array_equal(got_part, want_part)


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
