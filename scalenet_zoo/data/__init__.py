"""Data sets: opened by what a user writes, augmented, and given in batches.

"masks:/path" --open_data--> Examples --training_loader--> batches, augmented
                                 |
                                 +------evaluation_loader-> batches, as they are
"""

from scalenet_zoo.data.broken import BrokenImages, LoadingError
from scalenet_zoo.data.classification import Stream
from scalenet_zoo.data.crops import crop_person
from scalenet_zoo.data.examples import IGNORE, Crop, Examples, People, Person, Region, Target, View
from scalenet_zoo.data.loaders import evaluation_loader, training_loader
from scalenet_zoo.data.people import fit_image
from scalenet_zoo.data.pose import mirror_order
from scalenet_zoo.data.sources import open_data

__all__ = [
    "IGNORE",
    "BrokenImages",
    "Crop",
    "Examples",
    "LoadingError",
    "People",
    "Person",
    "Region",
    "Stream",
    "Target",
    "View",
    "crop_person",
    "evaluation_loader",
    "fit_image",
    "mirror_order",
    "open_data",
    "training_loader",
]
