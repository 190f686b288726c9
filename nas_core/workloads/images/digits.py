"""scikit-learn's bundled digits: 1,797 gray 8 x 8 images, always there."""

import numpy as np

from nas_core.base.errors import DataError
from nas_core.workloads.images.image_classification import ImageClassification, Split
from nas_core.workloads.images.tensors import RawImages
from nas_core.workloads.workload import WORKLOADS, Sample

NUM_IMAGES = 1797
NUM_TEST = 360


@WORKLOADS.add
class Digits(ImageClassification):
    """scikit-learn's handwritten digits: 1,797 gray 8 x 8 images, always there.

    The set has no official split: a fixed permutation gives 1,437 training and 360 test images.
    """

    name = "digits"
    sample = Sample(shape=(1, 8, 8), num_outputs=10)
    class_names = tuple(map(str, range(10)))

    def check_files(self) -> None:
        if self.settings.path:
            raise DataError("data.path", self.settings.path, "none for digits, which come with scikit-learn")

    def num_images(self) -> int:
        return NUM_IMAGES - NUM_TEST

    def num_test_images(self) -> int:
        return NUM_TEST

    def read(self, split: Split, resolution: int) -> RawImages:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        order = np.random.default_rng(0).permutation(NUM_IMAGES)
        chosen = order[:NUM_TEST] if split == "test" else order[NUM_TEST:]
        images = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # 16 grey levels
        return RawImages(images_NHWC=images[..., None], labels_N=bunch.target[chosen])
