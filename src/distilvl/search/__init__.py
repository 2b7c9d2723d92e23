"""Search photographs with a student: a folder of pictures in an embedded LanceDB table; docs/search.md has an example.

`Index.open` and `Index.create` give an `Index`; `index_folder` makes one or brings it up to date. `id` is the content
hash of a picture (32 hex digits), so what it stands for never changes: thumbnails can be cached for good, and copies of
a file share it. Searching is safe from several threads; a search sees what another process has added within five
seconds. All bad input raises `DistilvlError`; an unknown id too.
"""

from distilvl.models import Encoder, ModelInfo, load_encoder
from distilvl.search.about import UpdateReport
from distilvl.search.index import Index, index_folder
from distilvl.search.table import Hit

__all__ = ["Encoder", "Hit", "Index", "ModelInfo", "UpdateReport", "index_folder", "load_encoder"]
