"""How networks are trained: the recipe, and what is trained in full."""

from typing import Literal

from pydantic import Field

from nas_core.base.settings import Section


class Recipe(Section):
    """How a network is trained: SGD with momentum, cosine schedule with warm-up."""

    epochs: float = Field(10, gt=0, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Images per step.")
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, for the batch size given.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum.")
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="Decay of convolution and linear weights (not of norms and biases)."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps over which the rate rises linearly."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    augment: Literal["none", "crop", "crop-flip", "crop-flip-cutout"] = Field(
        "crop", description="On-device augmentation; crop pads and shifts by an eighth of the side."
    )
    ema_decay: float | None = Field(None, gt=0, lt=1, description="Decay of the weights' moving average; empty: none.")
    clip_norm: float | None = Field(5.0, gt=0, description="Gradient norm clip; empty: none.")
    amp: bool = Field(True, description="bfloat16 autocast where the device is a GPU.")
    compile: bool = Field(False, description="torch.compile the network (pays for long trainings on a GPU).")


class FullTrainingConfig(Section):
    """The full training of one network."""

    recipe: Recipe = Field(
        Recipe(epochs=30, label_smoothing=0.1, augment="crop-flip", ema_decay=0.998), description="The full recipe."
    )
    train_examples: int | None = Field(None, ge=1, description="Images to train on; empty: all but validation.")
    checkpoint_every_s: float = Field(30, ge=0, description="Time between checkpoints of a training.")


class TrainConfig(FullTrainingConfig):
    """The winner's full training, and what it is compared with."""

    compare_base: bool = Field(True, description="Train the base network alike.")
    compare_random: int = Field(1, ge=0, le=100, description="Random networks within the limits to train alike.")
