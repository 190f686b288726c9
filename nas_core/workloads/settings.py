"""Which data networks are scored and trained on."""

from typing import Literal

from pydantic import Field

from nas_core.base.settings import Section


class DataConfig(Section):
    """The images. Scoring sees train and validation only; test is touched once, by trained networks."""

    name: Literal["digits", "fashion-mnist", "cifar10", "folder"] = Field("digits", description="Data set.")
    path: str | None = Field(
        None, description="Folder or Parquet file of the data, where it is not at its usual place."
    )
    download: bool = Field(False, description="Fetch the images over the network where they are not found.")
    train_examples: int | None = Field(
        None, ge=1, description="Images to train on while scoring; empty: all but validation."
    )
    validation_examples: int = Field(
        1000, ge=1, description="Images held out of the training split to score networks on."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the train/validation split.")

    @property
    def identity(self) -> dict[str, object]:
        """What of the data a score depends on (where a named set lies does not matter)."""
        fields = self.model_dump(exclude={"path", "download"})
        return {**fields, "path": self.path if self.name == "folder" else None}
