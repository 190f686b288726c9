"""Small pictures that a report shows of examples: PNG files as text."""

import base64
import io

import numpy as np
from PIL import Image

LARGEST_SIDE = 160  # pixels; larger ones are made smaller


def encoded_picture(image_CHW: np.ndarray, palette: np.ndarray | None = None) -> str:
    """The image, uint8, as a PNG file in base64; of other numbers of channels than 1 and 3 the first is shown.

    ``palette`` gives the colour of each value of a map of one channel, 256 x 3.
    """
    channels = image_CHW if len(image_CHW) == 3 else image_CHW[:1]
    array = np.ascontiguousarray(channels.transpose(1, 2, 0))
    if palette is not None:
        array = palette[array[..., 0]]
    picture = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail(
            (LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.NEAREST if palette is not None else Image.Resampling.BICUBIC
        )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
