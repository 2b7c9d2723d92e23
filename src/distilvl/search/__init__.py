"""Search photographs with a student: a folder of pictures in an embedded LanceDB table.

    from distilvl.search import Index, index_folder

    index_folder("photos", "photos.index", model="runs/tiny")      # again later: only what changed is encoded
    index = Index.open("photos.index")                             # the model is loaded when it is first needed
    for hit in index.search("a dog on a beach", top=5, since="2021", folder="holidays"):
        print(hit.score, hit.path, hit.taken)

`Index.open` and `Index.create` give an `Index`: `update(folder)` takes in new and changed files and lets go of deleted
ones, `search(...)` gives `Hit`s, best first, `thumbnail(id)` and `paths(id)` what is stored of one. `index.encoder` is
the model, an `Encoder`, loaded and checked; `index.model` what is stored of it. `load_encoder(spec)` opens a run, a
student, an exported folder or any teacher.

`id` is the content hash of a picture (32 hex digits), so what it stands for never changes: thumbnails can be cached for
good, and copies of a file share it. `score` is a cosine. Searching is safe from several threads; a search sees what
another process has added within five seconds. All bad input raises `DistilvlError`; an unknown id too.
"""

from distilvl.models import Encoder, ModelInfo, load_encoder
from distilvl.search.about import UpdateReport
from distilvl.search.index import Index, index_folder
from distilvl.search.table import Hit

__all__ = ["Encoder", "Hit", "Index", "ModelInfo", "UpdateReport", "index_folder", "load_encoder"]
