"""Pictures for the demonstration: crops of the photographs in scikit-image's wheel."""

from trustvlm.demo.pictures import DemoPictures, write_pictures
from trustvlm.demo.sources import credits

__all__ = ["DemoPictures", "credits", "write_pictures"]
