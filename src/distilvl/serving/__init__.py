"""`distilvl serve`: a model behind an embeddings API, and a page that searches an index. Needs the extra `serve`."""

from distilvl.serving.run import serve
from distilvl.serving.settings import ServeSettings, read_key

__all__ = ["ServeSettings", "read_key", "serve"]
