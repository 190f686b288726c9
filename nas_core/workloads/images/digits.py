"""scikit-learn's bundled digits: 1,797 gray 8 x 8 images, always there."""

import numpy as np

from nas_core.workloads.images.sources import SOURCES, Split
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.settings import DataConfig

NUM_IMAGES = 1797
NUM_TEST = 360


class Digits:
    """The set has no official split: a fixed permutation gives 1,437 training and 360 test images."""

    def shape(self, config: DataConfig) -> tuple[int, int, int]:
        return 1, 8, 10

    def num_train(self, config: DataConfig) -> int:
        return NUM_IMAGES - NUM_TEST

    def class_names(self, config: DataConfig) -> tuple[str, ...]:
        return tuple(map(str, range(10)))

    def check(self, config: DataConfig) -> None:
        return None

    def read(self, config: DataConfig, split: Split, resolution: int) -> RawImages:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        order = np.random.default_rng(0).permutation(NUM_IMAGES)
        chosen = order[:NUM_TEST] if split == "test" else order[NUM_TEST:]
        images = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # 16 grey levels
        return RawImages(images_NHWC=images[..., None], labels_N=bunch.target[chosen])


SOURCES.add("digits")(Digits())
