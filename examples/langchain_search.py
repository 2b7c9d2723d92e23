"""A student in LangChain: nearest texts with its in-memory vector store.

    pip install langchain-huggingface
    python examples/langchain_search.py STUDENT "a dog in the snow"

LangChain's embedding class takes texts only; pictures go through sentence-transformers (see the example beside this).
"""

from __future__ import annotations

import sys

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_huggingface import HuggingFaceEmbeddings

TEXTS = ["a dog runs through deep snow", "two children eat ice cream", "a red car in front of a house"]


def search(student: str, text: str, texts: list[str]) -> list[tuple[float, str]]:
    """Cosine and text, best first."""
    store = InMemoryVectorStore(HuggingFaceEmbeddings(model_name=student))
    store.add_texts(texts)
    return [(score, found.page_content) for found, score in store.similarity_search_with_score(text, k=len(texts))]


if __name__ == "__main__":
    for score, found in search(sys.argv[1], sys.argv[2], TEXTS):
        print(f"{score:.3f}  {found}")  # noqa: T201
