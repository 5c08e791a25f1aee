"""What a trained model is used for: images and sentences compared, findings called by prompts, cases as evidence."""

from fewlabel.tasks.image_text import ImageText, load_image_text
from fewlabel.tasks.zero_shot import Prompts, class_prompts, default_prompts, read_prompts, zero_shot

__all__ = [
    "ImageText",
    "Prompts",
    "class_prompts",
    "default_prompts",
    "load_image_text",
    "read_prompts",
    "zero_shot",
]
