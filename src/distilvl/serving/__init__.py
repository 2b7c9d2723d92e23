"""`distilvl serve`: a model behind an embeddings API, and a page that searches an index. Needs the extra `serve`."""

from distilvl.serving.limits import ServeSettings, read_key
from distilvl.serving.run import serve

__all__ = ["ServeSettings", "read_key", "serve"]
