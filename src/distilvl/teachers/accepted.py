"""What `--teacher` takes, in one sentence for error messages."""

ACCEPTED_TEACHERS = (
    "Accepted are: 'demo'; a feature store or a folder of feature arrays; path/to/file.py:Class; "
    "a folder of distilvl export; a transformers dual encoder or SentenceTransformer (folder or hub id); "
    "beit3:base:CHECKPOINT:VOCABULARY; open_clip:MODEL/WEIGHTS; openai+https://HOST/PATH; "
    "KIND:... of an installed package."
)
