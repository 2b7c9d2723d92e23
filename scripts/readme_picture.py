"""Draw docs/images/demo.png: what the demo's student finds for captions of the test split.

    python scripts/readme_picture.py runs/demo docs/images/demo.png

For each caption the four most similar of the 1,000 test scenes; the caption's own scene is framed. Captions are those
of the test images 0, 7, 14, ...: chosen by number, not by result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distilvl.data.scenes import SceneImage, scenes_dataset
from distilvl.data.scenes.world import draw_scene
from distilvl.evaluation.encode import encode_dataset
from distilvl.students import load_student

ROWS, FOUND, SIDE, GAP, WORDS = 5, 4, 120, 10, 430


def wrap(text: str, width: int) -> str:
    """Lines of at most `width` letters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main(run: Path, out: Path) -> None:
    """Encode the gallery, rank it for each chosen caption, draw."""
    gallery = scenes_dataset(train=4000, val=500, test=1000).split("test")
    encoded = encode_dataset(load_student(run / "student"), gallery)
    font = ImageFont.load_default(16)
    sheet = Image.new("RGB", (WORDS + FOUND * (SIDE + GAP) + GAP, ROWS * (SIDE + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row in range(ROWS):
        own, style = 7 * row, row % 5
        order = np.argsort(-encoded.images @ encoded.texts[5 * own + style], kind="stable")
        top = GAP + row * (SIDE + GAP)
        pen.text((GAP, top + 12), wrap(f"{gallery[own].captions[style]}", 50), fill="black", font=font)
        for place, found in enumerate(order[:FOUND]):
            image = gallery[int(found)].image
            assert isinstance(image, SceneImage)
            left = WORDS + place * (SIDE + GAP)
            if found == own:
                pen.rectangle((left - 5, top - 5, left + SIDE + 4, top + SIDE + 4), fill=(20, 130, 60))
            else:
                pen.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), fill=(190, 190, 190))
            sheet.paste(draw_scene(image.scene, SIDE), (left, top))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
