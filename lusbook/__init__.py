"""lusbook: B-line segmentation in lung ultrasound, and its adaptation between COVID-19 and pneumonia.

The package reads like the paper that it reproduces: Mason et al., "Lung ultrasound segmentation and
adaptation between COVID-19 and community-acquired pneumonia", MICCAI ASMUS 2021. A chapter of the
book imports the module of its section; importing the package itself starts no deep-learning backend.
"""

from lusbook.errors import LusbookError
from lusbook.settings import Settings, chapter_settings, make_settings

__all__ = ["LusbookError", "Settings", "chapter_settings", "make_settings"]
