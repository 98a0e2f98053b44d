"""What is written beside an exported model: a program that uses it without the kit."""

from string import Template

_EXAMPLE = Template('''"""Mask a photograph: python example.py car.jpg mask.png

Needs $packages, and the model beside this file;
model.json says what goes in and what comes out.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

$imports

FOLDER = Path(__file__).parent


def predict(photographs):
    """Return probabilities (batch, height, width, outputs) of (batch, height, width, 3) uint8."""
$predict


def main(photograph, out):
    about = json.loads((FOLDER / "model.json").read_text())
    with Image.open(photograph) as picture:
        if picture.mode.startswith(("I", "F")):
            sys.exit(f"{photograph}: has more than 8 bits; save it with 8")
        batch = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))[None]
    probabilities = predict(batch)[0]
    if about["threshold"] is None:  # several classes: the most probable one
        places = probabilities.argmax(axis=-1)
    else:
        places = (probabilities[..., 0] > about["threshold"]).astype(int)
    numbers, palette = np.array(about["numbers"], np.uint8), np.zeros((256, 3), np.uint8)
    palette[numbers] = [list(bytes.fromhex(colour[1:])) for colour in about["colours"]]
    mask = Image.fromarray(numbers[places])  # the numbers that the recipe gives the classes
    mask.putpalette(palette.tobytes())
    mask.save(out)
    print(f"{out}: {np.mean(places > 0):.1%} of the picture is not {about['classes'][0]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
''')

_ENGINES = {  # packages, imports, and how to predict
    "onnx": (
        "numpy, pillow and onnxruntime",
        "import onnxruntime",
        """
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    return session.run(None, {session.get_inputs()[0].name: photographs})[0]
""",
    ),
    "litert": (
        "numpy, pillow and ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter",
        """
    interpreter = Interpreter(str(FOLDER / "model.tflite"), num_threads=2)
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], photographs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], photographs)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])
""",
    ),
    "openvino": (
        "numpy, pillow and openvino",
        "import openvino",
        """
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it
    return openvino.Core().compile_model(FOLDER / "model.xml", "CPU", settings)(photographs)[0]
""",
    ),
    "saved_model": (
        "numpy, pillow and tensorflow",
        "import tensorflow as tf",
        """
    model = tf.saved_model.load(FOLDER / "saved_model")  # it lives as long as its name
    return model.serve(photographs).numpy()
""",
    ),
}


def example(format: str) -> str:
    """Return the text of `example.py` for a format."""
    packages, imports, predict = _ENGINES[format]
    return _EXAMPLE.substitute(packages=packages, imports=imports, predict=predict.strip("\n"))
