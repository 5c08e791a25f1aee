"""The data set on disk: a table of cases and a pixel store; `import_images` makes it, `Collection.open` opens
it.

A collection is a folder:

    cases.parquet     one row an image; its footer also holds what is true of the whole; replaced last
    collection.json   the same facts to be read by people
    pixels/           parts of uncompressed records in native bit depth, read by memory map
    thumbnails/       32 x 32 grey pictures, to find near-duplicates
    quarantine.csv    what could not be read, and why
    cache/            squares of one size, made when asked for; may be deleted
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewlabel.collection.cases import Collection
    from fewlabel.collection.duplicates import find_duplicates
    from fewlabel.collection.importing import import_images
    from fewlabel.collection.squares import square_image
    from fewlabel.collection.summary import ImportSummary
    from fewlabel.collection.targets import Target

__all__ = ["Collection", "ImportSummary", "Target", "find_duplicates", "import_images", "square_image"]

_HOME = {
    "Collection": "cases",
    "ImportSummary": "summary",
    "Target": "targets",
    "find_duplicates": "duplicates",
    "import_images": "importing",
    "square_image": "squares",
}


def __getattr__(name: str) -> object:
    """Names are looked up on first use: a worker process, which needs none of them, starts twice as fast."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
