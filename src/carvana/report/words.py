"""Say in plain English what a recipe does and what a training cost."""

from carvana.errors import plural
from carvana.recipe import Recipe, differences, load_recipe

REPORTED = {"dice": 0.87, "accuracy": 0.95}  # in the article, of validation, after 5 epochs
_NOT_THE_ARTICLES = (  # keys in which a recipe may differ and still be the article's
    *("data.seed", "training.seed", "training.precision", "training.epochs"),
    *("training.steps_per_epoch", "prediction."),
)
_OPTIMIZERS = {"rmsprop": "RMSprop", "adamw": "AdamW", "muon": "Muon"}
_LOSSES = {
    "binary_crossentropy": "cross-entropy",
    "bce_dice": "cross-entropy plus 1 - Dice",
}
_SIZES = {1: "the full size", 2: "half the size", 4: "a quarter of the size"}


def is_the_articles(recipe: Recipe) -> bool:
    """Tell whether a recipe is the published one, but for seeds, length and precision."""
    return all(
        key.startswith(_NOT_THE_ARTICLES) for key in differences(load_recipe("blog"), recipe)
    )


def describe(recipe: Recipe, train: int, validation: int, parameters: int) -> list[tuple[str, str]]:
    """Describe a recipe: pairs of a heading and a few sentences.

    Args:
        recipe: the recipe.
        train: photographs trained on.
        validation: photographs held out.
        parameters: of the network.
    """
    return [
        ("Data", _data(recipe, train, validation)),
        ("Input", _input(recipe)),
        ("Network", _network(recipe, parameters)),
        ("Training", _training(recipe, train)),
        ("Prediction", _prediction(recipe)),
    ]


def duration(seconds: float) -> str:
    """Write a time as people say it: `48 s`, `37 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _data(recipe: Recipe, train: int, validation: int) -> str:
    text = f"{train:,} photographs to train on and {validation:,} held out to validate on, "
    if recipe.data.split == "car":
        text += "chosen so that all photographs of one car or subject are on the same side."
    else:
        text += (
            "chosen one by one: other photographs of the same car or subject may be among those "
            "trained on."
        )
    if recipe.data.classes:
        names = recipe.data.class_names
        text += f" Each pixel is of one of {len(names)} classes: {_list(names)}."
    return text


def _input(recipe: Recipe) -> str:
    settings = recipe.input
    how = {"area": "by averaging areas", "bilinear": "bilinearly"}[settings.method]
    if settings.method == "bilinear":
        how += " and with antialiasing" if settings.antialias else ", without antialiasing"
    text = f"The network sees {settings.width} by {settings.height} pixels, resized {how}."
    changes = _augmentations(recipe)
    if not changes:
        return text + " Training photographs are not changed otherwise."
    return f"{text} Training photographs are changed at random: {_list(changes)}."


def _augmentations(recipe: Recipe) -> list[str]:
    given = recipe.augment
    phrases = {
        "brightness": f"brightness by up to ±{given.brightness:g}",
        "contrast": f"contrast by {given.contrast[0]:g} to {given.contrast[1]:g}",
        "saturation": f"saturation by {given.saturation[0]:g} to {given.saturation[1]:g}",
        "flip": "mirrored",
        "zoom": f"zoomed by up to {given.zoom:.0%}",
        "rotate": f"turned by up to {given.rotate:g}°",
        "shift": f"shifted by up to {given.shift:.0%} of a side",
        "stretch": f"stretched by up to {given.stretch:.0%}",
        "warp": "warped",
        "repaint": "cars repainted",
        "gamma": "gamma changed",
    }
    return [text for key, text in phrases.items() if getattr(given, key) not in (0, [1.0, 1.0])]


def _network(recipe: Recipe, parameters: int) -> str:
    model = recipe.model
    if model.network == "unet":
        return (
            f"The article's U-Net with {model.num_layers} levels of pooling, {model.filters} "
            f"filters in the first and dropout of {model.dropout:g}: {parameters:,} parameters."
        )
    text = "A U-Net on an image pyramid: context from a small picture, edges from a large one. "
    text += f"It reads the photograph at {plural(model.pictures, 'size')}"
    if model.encoder_levels:
        text += ", with an encoder that was trained on ImageNet"
    return f"{text}; {parameters:,} parameters."


def _training(recipe: Recipe, train: int) -> str:
    training = recipe.training
    steps = training.steps_per_epoch or -(-train // training.batch_size)
    rate = f"{training.learning_rate:.0e}".replace("e-0", "e-").replace("e+0", "e+")
    text = (
        f"{plural(training.epochs, 'epoch')} of {plural(steps, 'step')}, "
        f"{plural(training.batch_size, 'photograph')} each, by "
        f"{_OPTIMIZERS[training.optimizer]} with a learning rate of {rate}"
    )
    if training.schedule == "cosine":
        text += ", falling to zero along a cosine"
    text += f". The loss is {_LOSSES[training.loss]}."
    seen = training.epochs * steps * training.batch_size
    if seen < train:
        text += f" It sees {seen:,} of the photographs, each once."
    if training.initial_weights:
        text += f" It starts from the weights of {training.initial_weights}."
    ends = [0, *training.stage_ends]
    stages = len(ends) - 1
    if stages > 1:
        parts = []
        for number in range(stages - 1):
            shrunk = 2 ** (recipe.model.pictures - 1 - number)
            size = _SIZES.get(shrunk, f"1/{shrunk} of the size")
            parts.append(f"{plural(ends[number + 1] - ends[number], 'epoch')} at {size}")
        text += f" Smaller parts of the network are trained first: {_list(parts)}."
    return text


def _prediction(recipe: Recipe) -> str:
    given, ways = recipe.prediction, []
    if len(given.scales) > 1:
        ways.append(f"at {plural(len(given.scales), 'size')}")
    if given.flip:
        ways.append("of the photograph and its mirror image")
    text = "Probabilities are brought to the photograph's own size"
    if ways:
        text = f"The probabilities {' and '.join(ways)} are averaged at the photograph's own size"
    if recipe.data.classes:
        return f"{text}; each pixel is given its most probable class."
    return f"{text}; a pixel above {given.threshold:g} is in the mask."


def _list(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
