"""Search photographs with a student: a folder of pictures in an embedded LanceDB table.

    from distilvl.search import Index, index_folder

    index_folder("photos", "photos.index", model="runs/tiny")      # again later: only what changed is encoded
    index = Index.open("photos.index")                             # the model is loaded when it is first needed
    for hit in index.search("a dog on a beach", top=5, since="2021", folder="holidays"):
        print(hit.score, hit.path, hit.taken)

The surface that other parts build on:

| name | what it is |
|---|---|
| `index_folder(folder, out, model=None, rebuild=False) -> UpdateReport` | make or update an index |
| `Index.open(path, model=None) -> Index` | an index that is there; `model`: a spec or an open model, else its own |
| `Index.create(path, model, rebuild=False) -> Index` | the same, made where it is not there |
| `index.update(folder) -> UpdateReport` | take in new and changed files of `folder`, let go of deleted ones |
| `index.search(text, image, like=, vector=, weight=, top=, folder=, since=, until=, copies=)` | `Hit`s, best first |
| `index.thumbnail(id) -> bytes` | JPEG, at most 256 pixels wide or high |
| `index.paths(id) -> list[str]` | the files with that content |
| `len(index)` | how many photographs |
| `index.encoder` | the model, loaded and checked: an `Encoder` |
| `index.model` | `ModelInfo(spec, name, revision, dim)` as stored, nothing loaded |
| `Hit` | `id`, `path`, `score`, `date`, `taken`, `width`, `height`, `paths`, `copies`; `as_dict()` |
| `Encoder` | a model with the surface of `Teacher` and unit float32 rows |
| `load_encoder(spec)` | a run, a student, an exported folder, or any teacher, as an encoder |

`id` is the content hash of a picture (32 hex digits), so what it stands for never changes: thumbnails can be cached for
good, and copies of a file share it. `score` is a cosine. Searching is safe from several threads; a search sees what
another process has added within five seconds. All bad input raises `DistilvlError`; an unknown id too.
"""

from distilvl.models import Encoder, ModelInfo, load_encoder
from distilvl.search.folder import index_folder
from distilvl.search.index import Index
from distilvl.search.records import Hit, UpdateReport

__all__ = ["Encoder", "Hit", "Index", "ModelInfo", "UpdateReport", "index_folder", "load_encoder"]
