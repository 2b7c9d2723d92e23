"""`distilvl embed`."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from distilvl.cli.shared import AsJson, MaxPixels, SkipBad, app, clean_stdout, print_json, print_left_out
from distilvl.errors import DistilvlError

_OUT = (
    "Folder for image_features.npy, text_features.npy and ids.json, which --teacher reads; without it a line of JSON "
)
_OUT += "for each item is printed."


@app.command(epilog='Example: distilvl embed runs/demo photos/ --text "a red circle" --out embeddings')
def embed(
    model: Annotated[str, Argument(help="Run, student, exported folder, or whatever --teacher takes.")],
    files: Annotated[list[Path] | None, Argument(help="Image files, and folders of them.")] = None,
    text: Annotated[list[str] | None, Option(help="A text; may be given again.")] = None,
    texts: Annotated[str | None, Option(help="File with one text a line; - for stdin.")] = None,
    data: Annotated[str | None, Option(help="Dataset whose images and captions are encoded.")] = None,
    split: Annotated[str, Option(help="Split of --data; all for all of them.")] = "all",
    out: Annotated[Path | None, Option(help=_OUT)] = None,
    dim: Annotated[int | None, Option(min=1, help="First so many numbers of a Matryoshka student.")] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Encode images and texts with any model: L2-normalised embeddings as NumPy arrays, or as lines of JSON."""
    from distilvl.data import PairDataset, load_dataset
    from distilvl.extraction.embed import Photographs, embed
    from distilvl.models.loading import load_encoder

    lines = [*(text or ()), *(_lines(texts) if texts is not None else ())]
    if data is not None and (files or lines):
        raise DistilvlError("--data does not go with files and texts.", "Encode them by a second call.")
    if data is None and not files and not lines:
        raise DistilvlError("there is nothing to encode.", "Name image files or folders, --text, --texts or --data.")
    with clean_stdout():
        images: Photographs | PairDataset | None = None
        if data is not None:
            dataset = load_dataset(data, skip_bad=skip_bad)
            images = dataset if split == "all" else dataset.split(split)
        elif files:
            images = Photographs.of_paths(files, skip_bad=skip_bad)
        encoder = load_encoder(model)
        found = embed(encoder, images, lines, skip_bad=skip_bad).cut(dim, encoder.dims)
        written = [] if out is None else found.write(out)
    parts = {"image": found.images, "text": found.texts}
    if out is None:
        for kind, array in parts.items():
            for name, embedding in zip(found.ids.get(kind, ()), () if array is None else array, strict=True):
                print_json({kind: name, "embedding": embedding.tolist()}, indent=None)
        return
    counts = {kind: 0 if array is None else len(array) for kind, array in parts.items()}
    size = next(array.shape[1] for array in parts.values() if array is not None)
    if as_json:
        about: dict[str, object] = {"model": found.name, "revision": found.revision, "dim": size}
        about |= {"images": counts["image"], "texts": counts["text"], "files": list(map(str, written))}
        print_json(about | {"left_out": found.left_out.as_dict()})
        return
    echo(f"{out}: {counts['image']} images and {counts['text']} texts by {found.name}, {size} dimensions")
    print_left_out(found.left_out)


def _lines(file: str) -> list[str]:
    """The texts of a file, or of stdin; blank lines are none."""
    from distilvl.data.tables import read_lines

    lines = sys.stdin if file == "-" else read_lines(Path(file))
    return [line.strip() for line in lines if line.strip()]
