"""Which data networks are scored and trained on, and how their training split is divided."""

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from nas_core.base.errors import DataError
from nas_core.base.settings import PathText, Section
from nas_core.workloads.normalisation import Known

if TYPE_CHECKING:
    import numpy as np


class Scale(Section):
    """Mean and deviation that inputs are brought to 0 and 1 by, one per channel: of images as shares of brightness."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)


def _preparation(value: object) -> object:
    """A name, or a scale; anything else is one error and not one for each."""
    try:
        known = value in NAMES if isinstance(value, str) else Scale.model_validate(value)
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"one of {', '.join(NAMES)}, or {{mean: [...], std: [...]}} with deviations above 0")
    return value


NAMES = ("data", *get_args(Known))
Preparation = Annotated[Literal["data"] | Known | Scale, BeforeValidator(_preparation)]


class SplitSettings(Section):
    """Scoring sees train and validation only; test is touched once, by trained networks."""

    train_examples: int | None = Field(
        None, ge=1, description="Examples to train on while scoring; empty: all but validation."
    )
    validation_examples: int = Field(
        1000, ge=1, description="Examples held out of the training split to score networks on."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the train/validation split.")
    normalise: Preparation = Field(
        "data",
        description="How inputs are brought to a common scale: by the training inputs' mean and deviation, ImageNet's, "
        "0.5 and 0.5, CLIP's, or not (of images: fractions from 0 to 1); or `{mean: [...], std: [...]}`, one number "
        "per channel. A trained model needs what it was trained with.",
    )

    def check_sizes(self, num_examples: int, of_full_training: int | None = None) -> None:
        """Raises DataError if the splits asked for, here or by a full training, exceed the training split."""
        left = num_examples - self.validation_examples
        if left < 1:
            expected = f"fewer than the {num_examples} training examples"
            raise DataError("data.validation_examples", self.validation_examples, expected)
        wanted = {"data.train_examples": self.train_examples, "train.train_examples": of_full_training}
        for field, count in wanted.items():
            if count is not None and count > left:
                raise DataError(field, count, f"at most {left}, what validation leaves of {num_examples}")

    def divided(self, num_examples: int) -> "tuple[np.ndarray, np.ndarray]":
        """Indices of the training and of the validation examples.

        The validation examples depend on ``split_seed`` and their number alone, so
        trainings on more or fewer examples are validated on the same ones.
        """
        import numpy as np

        held_out, rest = np.split(self.order(num_examples), [self.validation_examples])
        return rest[: self.train_examples], held_out

    def order(self, num_examples: int) -> "np.ndarray":
        """Indices of all examples: first those to validate on, then those to train on, as many as are wanted."""
        import numpy as np

        return np.random.default_rng(self.split_seed).permutation(num_examples)

    def num_examples(self, num_examples: int) -> tuple[int, int]:
        """How many examples of the training split are trained on, and how many validated on."""
        return self.train_examples or num_examples - self.validation_examples, self.validation_examples


class ImageSettings(SplitSettings):
    """Images in files, and their splits."""

    path: PathText | None = Field(
        None, description="Folder or Parquet file of the data, where it is not at its usual place."
    )
    download: bool = Field(False, description="Fetch the images over the network where they are not found.")
    hold: Literal["auto", "memory", "map", "stream"] = Field(
        "auto",
        description="Decoded images: in each worker's memory, in a file that a node's workers share, or decoded as "
        "they are needed; auto: the first of these that they fit.",
    )
    cache_gb: float = Field(
        100, ge=0, le=1e6, description="GB of disk that a node's decoded images may take, all sets together."
    )
    loaders: int = Field(
        0, ge=0, le=1024, description="Processes that decode images as they are needed; 0: one per thread."
    )


def _colour(name: str) -> str:
    from PIL import ImageColor

    ImageColor.getrgb(name)  # raises ValueError for what is none
    return name


class EncodedSettings(ImageSettings):
    """Encoded images of any size, how they become squares, and what happens to those that cannot be read."""

    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="Images that cannot be read, and rows that lack a value: stop before anything is computed, or "
        "leave them out and say so.",
    )
    side: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Side in pixels where the space has none; empty: the median of the shorter sides, 224 at most.",
    )
    fit: Literal["crop", "pad", "squash"] = Field(
        "crop", description="How images become squares: cut out the middle, fill up with the background, or squash."
    )
    crop_pct: float = Field(
        1.0,
        gt=0.05,
        le=1,
        description="Share of the scaled image's side that the middle has, as timm's crop percentage.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = Field(
        "bilinear", description="How images are scaled, by timm's names."
    )
    background: Annotated[str, AfterValidator(_colour)] = Field(
        "white", description="Colour behind transparent images and beside padded ones: a name, or #rrggbb."
    )
