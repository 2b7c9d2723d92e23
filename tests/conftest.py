"""Settings and small real models shared by all tests: no hub, no downloads, repeatable hypothesis."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

settings.register_profile("distilvl", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("distilvl")

SMALL_STUDENT = """
image:
  config: {model_type: vit, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32,
           image_size: 32, patch_size: 8, hidden_dropout_prob: 0.1}
  size: 32
  pooling: mean
text:
  config: {model_type: bert, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32,
           max_position_embeddings: 64}
  vocabulary: 120
  max_length: 48
  pooling: mean
"""


@pytest.fixture
def student_yaml(tmp_path: Path) -> Path:
    """A student preset of a few thousand weights, with dropout, so that resuming needs the random state."""
    path = tmp_path / "small-student.yaml"
    path.write_text(SMALL_STUDENT, encoding="utf-8")
    return path
