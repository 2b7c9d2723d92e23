"""What looks like a picture is a picture or an error, never the row of a text."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from distilvl.serving.picture_strings import Likeness, likeness

_PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (20, 31, 3), np.uint8))


def _data(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    _PICTURE.save(out, kind)
    return out.getvalue()


_PNG = base64.b64encode(_data()).decode()
_URLSAFE = base64.urlsafe_b64encode(_data()).decode()
_WRAPPED = base64.encodebytes(_data()).decode()
_HEIC = base64.b64encode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)).decode()
_JPEG = base64.b64encode(_data("JPEG")).decode()
_REST = np.random.default_rng(4).integers(0, 255, 300, np.uint8).tobytes()
_HEADS = {
    "JPEG XL": b"\xff\x0a",
    "SVG with a comment": b"<!-- drawn by hand --><svg/>",
    "SVG with its type": b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'>",
    "PSD": b"8BPS\0\1",
    "QOI": b"qoif\0\0\0\x10",
    "DDS": b"DDS \x7c\0\0\0",
    "EXR": b"\x76\x2f\x31\x01",
    "HDR": b"#?RADIANCE\n",
    "PDF": b"%PDF-1.7\n",
    "AVIF in a sequence": b"\0\0\0\x18ftypavio",
}
_AROUND = (
    *(
        (before, "")
        for before in (";base64,", ",", "jpeg;base64,", "jpg,", "base64 ", "base64=", "image=", "base64://")
    ),
    *(("image:", ""), ("[", "]"), ("(", ")"), ("{", "}"), ('["', '"]'), ('{"b64_json":"', '"}'), ("![](", ")")),
    *(('<img src="', '">'), ("look at ", " please")),
)
assert {"+", "/"} & set(_PNG)
assert {"-", "_"} & set(_URLSAFE)
assert _PNG.endswith("=")

READ = {
    "capitals": f"DATA:IMAGE/PNG;BASE64,{_PNG}",
    "mixed case": f"Data:image/PNG;Base64,{_PNG}",
    "a parameter": f"data:image/png;charset=utf-8;base64,{_PNG}",
    "a quoted parameter": f'data:image/png;name="a b.png";base64,{_PNG}',
    "blanks in the head": f"data: image/png ; base64 ,{_PNG}",
    "blanks around": f" \n{'data:image/png;base64,' + _PNG}\r\n",
    "quotes around": f'"data:image/png;base64,{_PNG}"',
    "lines of 76": f"data:image/png;base64,\n{_WRAPPED}",
    "for addresses": f"data:image/png;base64,{_URLSAFE}",
    "without padding": f"data:image/png;base64,{_PNG.rstrip('=')}",
    "for addresses, without padding": f"data:image/png;base64,{_URLSAFE.rstrip('=')}",
    "percent-encoded base64": f"data:image/png;base64,{quote(_PNG, safe='')}",
    "all percent-encoded": quote(f"data:image/png;base64,{_PNG}", safe=""),
    "percent-encoded bytes": f"data:image/png,{quote(_data(), safe='')}",
    "another type": f"data:image/jpg;base64,{_PNG}",
    "any type": f"data:image/*;base64,{_PNG}",
    "no type": f"data:;base64,{_PNG}",
    "application": f"data:application/octet-stream;base64,{_PNG}",
    "bare": _PNG,
    "bare, for addresses": _URLSAFE.rstrip("="),
    "bare, in lines": _WRAPPED,
    "bare, percent-encoded": quote(_PNG, safe=""),
    "bare, after its encoding": f"base64,{_PNG}",
    "Python's bytes": f"b'{_PNG}'",
    "slashes escaped as in JSON": f"data:image/png;base64,{_PNG}".replace("/", "\\/"),
    "bare, slashes escaped": _PNG.replace("/", "\\/"),
    "percent-encoded twice": quote(quote(f"data:image/png;base64,{_PNG}", safe=""), safe=""),
    "after a blank that is not broken": f"\u00a0{_PNG}",
    "after a joiner": f"\u2060{_PNG}",
    "curly quotes": f"\u201c{_PNG}\u201d",
}


@pytest.mark.parametrize("kind", READ)
def test_a_picture_in_any_spelling_is_a_picture(served: Any, kind: str) -> None:
    row = served.encoder.encode_images([_PICTURE])[0]
    for value in (READ[kind], {"image": READ[kind]}, {"image_url": {"url": READ[kind]}}):
        np.testing.assert_allclose(served.rows([value])[0], row, atol=1e-6)
    np.testing.assert_allclose(served.rows(READ[kind], modality="image")[0], row, atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_bare_base64_is_known_by_its_first_bytes(served: Any, kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    found = served.rows(base64.b64encode(_data(kind)).decode())[0]
    decoded = Image.open(io.BytesIO(_data(kind))).convert("RGB")
    np.testing.assert_allclose(found, served.encoder.encode_images([decoded])[0], atol=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        {"image": f"data:image/png;base64,{_PNG}", "type": "image"},
        {"type": "image_url", "image_url": f"data:image/png;base64,{_PNG}"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}", "detail": "low"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{_PNG}"},
        {"type": "image", "image": {"url": _PNG}},
    ],
    ids=lambda value: " ".join(value),
)
def test_the_objects_of_other_apis(served: Any, value: dict[str, Any]) -> None:
    row = served.encoder.encode_images([_PICTURE])[0]
    np.testing.assert_allclose(served.rows([value])[0], row, atol=1e-6)
    message = {"model": "tiny", "messages": [{"role": "user", "content": [value]}]}
    answer = served.client.post("/v1/embeddings", json=message).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], row, atol=1e-6)


REFUSED = {
    "HEIC": f"data:image/heic;base64,{_HEIC}",
    "bare HEIC": _HEIC,
    "SVG": "data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>",
    "bare SVG": "<svg xmlns='http://www.w3.org/2000/svg'><path/></svg>",
    "a video": "data:video/mp4;base64,AAAAIGZ0eXBpc29t",
    "no comma": f"data:image/png;base64:{_PNG}",
    "an empty one": "data:image/png;base64,",
    "a cut one": f"data:image/png;base64,{_PNG[:200]}",
    "a bare cut one": _PNG[:100],
    "a plus made a blank": _PNG.replace("+", " "),
    "no scheme": f"image/png;base64,{_PNG}",
    "Markdown": f"![a dog](data:image/png;base64,{_PNG})",
    "HTML": f"<img src='data:image/png;base64,{_PNG}'>",
    **{f"{before}B{after}": f"{before}{_JPEG}{after}" for before, after in _AROUND},
    "PEM": f"-----BEGIN IMAGE-----\n{base64.encodebytes(_data('JPEG')).decode()}-----END IMAGE-----",
    "base64 of base64": base64.b64encode(_JPEG.encode()).decode(),
    "base64 of a data URL": base64.b64encode(f"data:image/jpeg;base64,{_JPEG}".encode()).decode(),
    "groups of 8 with blanks": " ".join(_JPEG[k : k + 8] for k in range(0, len(_JPEG), 8)),
    "groups of 8 with tabs": "\t".join(_JPEG[k : k + 8] for k in range(0, len(_JPEG), 8)),
    "hexadecimal with blanks": _data("JPEG").hex(" "),
    "hexadecimal with colons": _data("JPEG").hex(":"),
    "hexadecimal escapes": "".join(f"\\x{byte:02x}" for byte in _data("JPEG")),
    "hexadecimal numbers": ", ".join(f"0x{byte:02x}" for byte in _data("JPEG")),
    "numbers": str(list(_data("JPEG"))),
    "signed numbers": str([byte - 256 * (byte > 127) for byte in _data("JPEG")]),
    "numbers with their places": json.dumps({str(k): byte for k, byte in enumerate(_data("JPEG"))}),
    "a bytearray": repr(bytearray(_data("JPEG"))),
    **{f"bare {kind}": base64.b64encode(head + _REST).decode() for kind, head in _HEADS.items()},
    "noise": base64.b64encode(_REST * 4).decode(),
    "a drawing with a comment": "<!-- drawn by hand --><svg xmlns='http://www.w3.org/2000/svg'/>",
    "hexadecimal": _data().hex(),
    "bytes as letters": _data().decode("latin-1"),
    "bytes as UTF-8": _data("JPEG").decode("utf-8", "replace"),
    "Python's repr of bytes": repr(_data()),
    "an address": "https://example.org/dog.jpg",
    "an address with a query": "https://example.org/dog.JPEG?width=300#top",
    "an address without a scheme": "example.org/a/dog.webp",
    "a bucket": "s3://bucket/photos/dog.png",
    "a blob": "blob:https://example.org/550e8400",
    "a file's address": "file:///home/me/My Pictures/dog.jpg",
    "a path": "/home/me/My Pictures/dog.jpg",
    "Windows' path": "C:\\Users\\me\\My Pictures\\dog.HEIC",
    "a relative path": "../photos/dog.tiff",
    "a file's name": "IMG_1234.JPG",
    "a file's name with a blank": "IMG 1234.JPG",
    "a screen's": "Screenshot 2021-07-05 at 10.11.12.png",
    "a path with a blank": "my photos/dog.jpg",
    "an address with a size": "https://example.org/a.jpg!large",
    "an address with another size": "https://example.org/a.jpg:large",
    "an address with a slash": "https://example.org/a.jpg/",
    "an address at the end of a sentence": "https://example.org/a.jpg.",
    "an address in brackets": "(https://example.org/a.jpg)",
    "a packed drawing": "drawing.svgz",
    "a camera's": "IMG_1234.CR3",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_and_not_taken_for_words(served: Any, kind: str) -> None:
    before = len(served.model.batches)
    for value in (REFUSED[kind], {"image": REFUSED[kind]}):
        error = served.client.post("/v1/embeddings", json={"model": "tiny", "input": ["fine", value]})
        assert error.status_code == 422, error.text
        assert (error.json()["error"]["code"], error.json()["error"]["param"]) == ("invalid_image", "input[1]")
        assert len(error.json()["error"]["message"]) < 400
    assert len(served.model.batches) == before


@pytest.mark.parametrize(
    "text",
    [
        "a dog on a beach",
        "",
        "data: the new oil, they say",
        "data:,hello",
        "a file called dog.jpg",
        "dog.jpg and cat.jpg",
        "the first letters are iVBORw0KGgoAAAA in every PNG",
        "/9j/ is how a JPEG begins",
        "GIF89a is a format of 1989",
        "https://example.org/dogs",
        "see https://example.org/dog.jpg",
        "see https://example.org/dog.jpg.",
        "dog.jpg on the beach",
        "a photo called dog.jpg",
        "Photo of a dog",
        "black and/or white",
        "base64, explained",
        "BMW 3 Series",
        "P6 42 is a bus",
        "II*",
        "b'day party",
        "Supercalifragilisticexpialidocious",
        "0123456789abcdef0123456789abcdef",
        "狗在海滩上",
        ".jpg",
        "5.5",
        "x" * 5000,
        "a dog on a beach " * 400,
        "0123456789abcdef" * 8,
        "sha512: " + base64.b64encode(bytes(range(64))).decode(),
        "see https://example.org/photos/2021/07/Holidays-In-Norway?token=" + base64.b64encode(_REST[:200]).decode(),
        "/workspace/photos/holidays/norway",
        "/workspace/photos/of/our/long/holidays/in/norway/and/sweden",
        "/9j/ is how a JPEG begins, and " + "then there are many more words about pictures " * 9,
        "Rindfleischetikettierungsueberwachungsaufgabenuebertragungsgesetz",
        "the years 1999, 2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009, 2010, 2011",
        "12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26",
        "de ad be ef de ad be ef de ad be ef de ad be ef de ad be ef",
        "The-Quick-Brown-Fox-Jumps-Over-12-Lazy-Dogs-" * 40,
        "\u72d7\u5728\u6d77\u6ee9\u4e0a" * 500,
        "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899",
    ],
)
def test_words_stay_words(served: Any, text: str) -> None:
    assert likeness(text) is Likeness.TEXT
    np.testing.assert_allclose(served.rows(text), served.encoder.encode_texts([text]), atol=1e-6)


@pytest.mark.parametrize("kind", ["capitals", "bare"])
def test_who_says_that_it_is_a_text_gets_a_text(served: Any, kind: str) -> None:
    row = served.encoder.encode_texts([READ[kind]])
    np.testing.assert_allclose(served.rows([{"text": READ[kind]}]), row, atol=1e-6)
    np.testing.assert_allclose(served.rows(READ[kind], modality="text"), row, atol=1e-6)


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_forms_and_files_are_refused_with_what_to_send(served: Any, kind: str) -> None:
    answer = served.client.post("/v1/embeddings", content=_data(), headers={"Content-Type": kind})
    assert "data:image/TYPE;base64" in served.refusal(answer, 422)["message"]


def test_what_is_said_to_be_the_other_is_refused(served: Any) -> None:
    assert served.refusal(served.embed([{"image": _PNG}], modality="text"), 422)["param"] == "input[0]"
    assert served.refusal(served.embed([{"text": "a"}], modality="image"), 422)["param"] == "input[0]"


@pytest.mark.parametrize(
    "text",
    [
        "A" * 8_000_000,
        "AAAA " * 1_000_000,
        "%2525" * 1_000_000,
        "ff " * 1_000_000,
        "1, " * 1_000_000,
        "<!" * 1_000_000,
        '"1": ' * 500_000,
        "/" * 4_000_000,
        "a/" * 2000,
        "IMG " * 1000,
        "a b c d/" * 500,
        "IMG 1" * 800,
        base64.b64encode(base64.b64encode(base64.b64encode(bytes(200)))).decode() * 1000,
    ],
    ids=lambda text: text[:8],
)
def test_a_hostile_string_takes_little_time(text: str) -> None:
    start = time.perf_counter()
    likeness(text)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": 5, "content": "a dog"}, "role"),
        ({"role": ["user"], "content": "a dog"}, "role"),
        ({"role": "user", "name": 5, "content": "a dog"}, "name"),
        ({"role": "user", "content": [{"type": "text", "text": "a dog", "detail": "low"}]}, "detail"),
        ({"content": [{"image_url": {"url": _PNG, "detail": 5}}]}, "image_url.detail"),
        ({"content": [{"type": "input_image", "image_url": _PNG, "detail": []}]}, "detail"),
    ],
    ids=str,
)
def test_fields_of_chats_of_a_wrong_kind_are_refused_by_name(served: Any, message: dict[str, Any], param: str) -> None:
    answer = served.client.post("/v1/embeddings", json={"model": "tiny", "messages": [message]})
    assert served.refusal(answer, 422)["param"] == f"messages.{param}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_of_get_is_refused(served: Any, method: str) -> None:
    assert served.client.request(method, "/v1/models").status_code == 200
    answer = served.client.request(method, "/v1/models", content=b'{"q": "a"}')
    assert answer.status_code == 422
    if method == "GET":
        assert served.refusal(answer, 422)["param"] == "body"
