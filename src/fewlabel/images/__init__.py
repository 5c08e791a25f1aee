"""Reading images: from files, series and archives on disk to `Image`, with every decision on record.

Two steps. `scan` looks at headers only and lists what can become an image (`Source`) and what cannot and why
(`Rejected`). `read` decodes one source, or raises `UnreadableImage` with the reason. Files are known by their
content, never by their extension.
"""

from fewlabel.images.quality import quality_flags
from fewlabel.images.reading import read, read_file
from fewlabel.images.scanning import scan
from fewlabel.images.source import Rejected, Source

__all__ = ["Rejected", "Source", "medmnist_npz", "quality_flags", "read", "read_file", "scan"]


def __getattr__(name: str) -> object:
    """`medmnist_npz` is looked up on first use: hardly any run needs it."""
    if name == "medmnist_npz":
        from fewlabel.images.medmnist import medmnist_npz

        return medmnist_npz
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
