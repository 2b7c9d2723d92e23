"""A student in LlamaIndex: nearest texts with its in-memory index; no language model is used.

    pip install llama-index-core llama-index-embeddings-huggingface
    python examples/llama_index_search.py STUDENT "a dog in the snow"

The embedding class takes texts only; pictures go through sentence-transformers (see the example beside this).
"""

from __future__ import annotations

import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

TEXTS = ["a dog runs through deep snow", "two children eat ice cream", "a red car in front of a house"]


def search(student: str, text: str, texts: list[str]) -> list[tuple[float, str]]:
    """Cosine and text, best first."""
    model = HuggingFaceEmbedding(model_name=student, device="cpu")
    index = VectorStoreIndex([TextNode(text=one) for one in texts], embed_model=model)
    hits = index.as_retriever(similarity_top_k=len(texts)).retrieve(text)
    return [(float(hit.score or 0.0), hit.node.get_content()) for hit in hits]


if __name__ == "__main__":
    for score, found in search(sys.argv[1], sys.argv[2], TEXTS):
        print(f"{score:.3f}  {found}")  # noqa: T201
