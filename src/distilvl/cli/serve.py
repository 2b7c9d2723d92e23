"""`distilvl serve`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from distilvl.cli.shared import app


@app.command(epilog="Example: distilvl serve --model runs/demo --index photos.index")
def serve(
    model: Annotated[
        str | None,
        Option(help="A run, a student's folder, an exported folder or a teacher; the index's own by default."),
    ] = None,
    index: Annotated[Path | None, Option(help="Index to search, as `distilvl index` made it.")] = None,
    host: Annotated[str, Option(help="Address to listen at; a public one needs a key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    name: Annotated[str | None, Option(help="What clients call the model; its own name by default.")] = None,
    max_batch: Annotated[int, Option(min=1, help="Items that the model encodes at a time.")] = 32,
    max_wait_ms: Annotated[float, Option(help="How long a batch waits for more items.")] = 5.0,
    max_items: Annotated[int, Option(min=1, help="Texts and pictures of one request.")] = 256,
    max_queue: Annotated[int, Option(min=1, help="Items waiting, of all requests; beyond it: 503.")] = 1024,
    max_upload_mb: Annotated[float, Option(help="Size of one request, millions of bytes.")] = 20.0,
    max_pixels: Annotated[int, Option(min=1, help="Pixels of one picture.")] = 50_000_000,
    read_timeout: Annotated[float, Option(help="Seconds for a request to arrive.")] = 30.0,
    request_timeout: Annotated[float, Option(help="Seconds for the response.")] = 60.0,
    api_key_env: Annotated[str | None, Option(help="Environment variable that holds the key.")] = None,
    api_key_file: Annotated[Path | None, Option(help="File that holds the key.")] = None,
    no_key: Annotated[bool, Option("--no-key", help="Let in whoever reaches the address.")] = False,
) -> None:
    """Serve a model as an embeddings API (OpenAI's), and a page that searches an index. Stops at Ctrl-C or SIGTERM."""
    from distilvl.serving import ServeSettings, read_key
    from distilvl.serving import serve as run

    settings = ServeSettings(
        max_batch=max_batch, max_wait_ms=max_wait_ms, max_items=max_items, max_queue=max_queue,
        max_upload_mb=max_upload_mb, max_pixels=max_pixels, read_timeout=read_timeout, request_timeout=request_timeout,
        api_key=read_key(api_key_env, api_key_file),
    )  # fmt: skip
    run(model, index, settings, host=host, port=port, name=name, no_key=no_key)
