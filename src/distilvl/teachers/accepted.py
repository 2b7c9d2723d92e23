"""What `--teacher` takes, in one sentence for error messages."""

ACCEPTED_TEACHERS = (
    "Accepted are: 'demo'; a feature store or a folder of feature arrays; path/to/file.py:Class; "
    "a SentenceTransformer folder or hub id."
)
