"""BEiT-3 with its retrieval heads, the paper's teacher, in plain PyTorch."""

from distilvl.teachers.beit3.teacher import Beit3Teacher

__all__ = ["Beit3Teacher"]
