"""Fixtures of the kinds of models that have tests of their own, for the door to all of them."""

from tests.search.conftest import colours, encoder
from tests.teachers.beit3.conftest import checkpoint, recipe, small, vocabulary, weights
from tests.teachers.http.conftest import server
from tests.teachers.test_open_clip_teacher import calls

__all__ = ["calls", "checkpoint", "colours", "encoder", "recipe", "server", "small", "vocabulary", "weights"]
