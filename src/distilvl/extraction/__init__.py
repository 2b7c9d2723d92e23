"""What fills a feature store: teachers' embeddings of a dataset's items, by one process, by many, or from arrays."""
