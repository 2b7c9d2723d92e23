"""Settings and small real models shared by all tests: no hub, no downloads, repeatable hypothesis."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

import distilvl
from distilvl.students import build_student, save_student

# Reasons that no installation removes: another system, another release, files that are not part of the project.
_FINE = ("Linux", "Windows", "signals", "this Pillow", "LittleCMS", "timm is installed", "pretrained networks")
_GET = "On Debian `apt-get install chromium chromium-driver npm gcc`; `make test-beside` has the packages of others."


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are `beside` need packages of others, and run by `make test-beside` alone."""
    if not os.environ.get("DISTILVL_BESIDE"):
        chosen = [item for item in items if item.get_closest_marker("beside") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def _unless_fine(report: Any) -> Any:
    """With `DISTILVL_NO_SKIPS` a skip for a missing browser, program or package is a failure."""
    if report.skipped and os.environ.get("DISTILVL_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(fine in reason for fine in _FINE):
            report.outcome, report.longrepr = "failed", f"DISTILVL_NO_SKIPS is set, and this was skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    return _unless_fine((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    return _unless_fine((yield))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line on what was skipped, and how to get it."""
    if skipped := len(terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"{skipped} skipped, for the reasons above. {_GET}")


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

STATIC_STUDENT = """
image:
  config: {model_type: vit, hidden_size: 24, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 48,
           image_size: 32, patch_size: 8}
  size: 32
  pooling: mean
text: {kind: static, vocabulary: 150, rank: 12}
"""


@pytest.fixture
def student_yaml(tmp_path: Path) -> Path:
    """A student preset of a few thousand weights, with dropout, so that resuming needs the random state."""
    path = tmp_path / "small-student.yaml"
    path.write_text(SMALL_STUDENT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def static_student(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A student preset with a small ViT and a table for the texts, as `fit` solves one."""
    path = tmp_path_factory.mktemp("static") / "static-student.yaml"
    path.write_text(STATIC_STUDENT, encoding="utf-8")
    return str(path)


@pytest.fixture
def static_folder(tmp_path: Path, static_student: str) -> Path:
    """A saved student of that preset, with a table of pairs."""
    import torch

    torch.manual_seed(0)
    words = ["a red box", "a red box on a green box", "two dogs", "zebras"]
    student = build_student(static_student, 16, words, overrides=["text.pairs=2"])
    save_student(student, tmp_path / "static-student")
    return tmp_path / "static-student"


@pytest.fixture(scope="session")
def teacher() -> str:
    """A teacher whose features can be learnt in a few steps."""
    return f"{Path(__file__).with_name('colour_teacher.py')}:ColourTeacher"


@pytest.fixture(scope="session")
def start_chromium() -> Callable[[], AbstractContextManager[Any]]:
    """Starts a headless Chromium that Selenium drives, with its console and network in its logs; skips without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.skip("no Chromium with its driver is installed (on Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    switches = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")

    @contextlib.contextmanager
    def start() -> Iterator[Any]:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in switches:
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
        driver.set_script_timeout(60)
        yield driver
        driver.quit()

    return start


COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
EVIL = (
    '</script><script>document.title="owned"</script><img src=x onerror="document.title=1"> & "quoted" `tick` | [a](b)'
)

TRAINED_STUDENT = """
image:
  config: {model_type: vit, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
           image_size: 32, patch_size: 8}
  size: 32
  pooling: mean
text:
  config: {model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
           max_position_embeddings: 64}
  vocabulary: 120
  max_length: 48
  pooling: mean
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> tuple[Path, Path]:
    """A distilled run and a contrastive one on 32 pictures; every other first caption is an attack."""
    folder = tmp_path_factory.mktemp("reports")
    pictures = folder / "pictures"
    pictures.mkdir()
    lines = []
    for k in range(32):
        image = Image.new("RGB", (40, 32), "white")
        left, top = 4 * (k % 5), 4 * (k // 8 % 5)
        ImageDraw.Draw(image).rectangle((left, top, left + 10, top + 10), fill=COLOURS[k % 8])
        image.save(pictures / f"{k:02d}.png")
        captions = [f"{EVIL} {k}" if k % 2 else f"a {COLOURS[k % 8]} box number {k}", f"box {k}, {COLOURS[k % 8]}"]
        lines.append(json.dumps({"image": f"{k:02d}.png", "captions": captions, "split": "train" if k < 16 else "val"}))
    (pictures / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    student = folder / "student.yaml"
    student.write_text(TRAINED_STUDENT, encoding="utf-8")
    quick = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1"]
    for name, recipe in (("distilled", "default"), ("pairs only", "contrastive")):
        distilvl.train(
            data=pictures,
            teacher=teacher,
            student=student,
            out=folder / name,
            recipe=recipe,
            overrides=[*quick, "training.epochs=3", "optimizer.lr=5e-3"],
            device="cpu",
        )
    return folder / "distilled", folder / "pairs only"


@pytest.fixture
def finished_result() -> dict[str, Any]:
    """result.json of a finished run."""
    return {
        "split": "val",
        "val": _score(300.0),
        "teacher": _score(400.0),
        "retention": 0.75,
        "best_epoch": 2,
        "epochs": 2,
        "steps": 20,
        "seconds": 90.0,
        "parameters": 1_000_000,
        "device": "cpu",
        "precision": "32-true",
    }


def _score(rsum: float) -> dict[str, Any]:
    """A score whose six recalls add up to `rsum`."""
    recalls = {f"r{k}": rsum / 6 for k in (1, 5, 10)}
    return {"image_to_text": recalls, "text_to_image": dict(recalls), "rsum": rsum}
