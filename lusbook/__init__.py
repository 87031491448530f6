"""lusbook: B-line segmentation in lung ultrasound, and its adaptation between COVID-19 and pneumonia.

The package reads like the paper that it reproduces: Mason et al., "Lung ultrasound segmentation and
adaptation between COVID-19 and community-acquired pneumonia", MICCAI ASMUS 2021. A chapter of the
book imports the module of its section; importing the package itself starts no deep-learning backend.
"""

import os

from PIL import Image

from lusbook.errors import LusbookError
from lusbook.settings import Settings, chapter_settings, make_settings

Image.MAX_IMAGE_PIXELS = 2**24  # a picture of twice as many is refused before it is unpacked

__all__ = ["LusbookError", "Settings", "chapter_settings", "make_settings"]

# TensorFlow takes oneDNN's kernels by itself on some processors only; on the others its own are half as fast. Set here,
# since it must be set before TensorFlow is imported, by whichever module.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
