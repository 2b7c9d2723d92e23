"""Search photographs with a student: folders of pictures in an embedded LanceDB table; see docs/searching.md.

`id` is the content hash of a picture (32 hex digits): copies of a file share it, and thumbnails can be cached for good.
Searching is safe from several threads; a search sees what another process has added within five seconds.
"""

from distilvl.search.about import StoredTeacher, UpdateReport
from distilvl.search.index import Index
from distilvl.search.make import index_folder
from distilvl.search.table import Hit

__all__ = ["Hit", "Index", "StoredTeacher", "UpdateReport", "index_folder"]
