"""Search in the page itself: a static folder with onnxruntime-web, the text tower, and an index of photographs.

from distilvl.browser import write_bundle

write_bundle("exported", "photos", "site")
"""

from distilvl.browser.bundle import Bundle, write_bundle
from distilvl.browser.npm import web_files

__all__ = ["Bundle", "web_files", "write_bundle"]
