"""Sets of images with one class each: one file per set, on a common base."""
