"""Pictures on their way to the model: what counts as held, and for how long."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from PIL import Image

from distilvl.models.encoder import Encoder
from distilvl.serving import model as model_module
from distilvl.serving.errors import RequestError
from distilvl.serving.middleware import Metrics
from distilvl.serving.model import ServedModel
from distilvl.serving.requests import Item
from distilvl.serving.settings import ServeSettings

from .conftest import Model


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set, and pictures are decoded; until then decoders hang."""
    gate = threading.Event()

    def slow(*_: Any) -> Image.Image:
        assert gate.wait(20)
        return Image.new("RGB", (10, 10))

    monkeypatch.setattr(model_module, "decode_picture", slow)
    return gate


def test_a_picture_for_which_nobody_waits_counts_until_its_decoder_ends(decoding: threading.Event, to_uri: Any) -> None:
    uri = to_uri(Image.new("RGB", (10, 10)))
    model = ServedModel(Encoder(Model()), "tiny", ServeSettings(max_pixels=100), Metrics())

    async def run() -> None:
        async def ask(count: int) -> None:
            await model.encode([Item("image", uri, "input")] * count)

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask(4), 0.3)
        with pytest.raises(RequestError, match="too many pictures"):
            await ask(1)
        decoding.set()
        for _ in range(1000):
            await asyncio.sleep(0.01)
            try:
                return await ask(4)
            except RequestError:
                continue
        pytest.fail("the pictures are still held")

    try:
        asyncio.run(run())
    finally:
        decoding.set()
        model.close()
