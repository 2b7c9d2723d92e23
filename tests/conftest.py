"""Settings and small real models shared by all tests: no hub, no downloads, repeatable hypothesis."""

from __future__ import annotations

import contextlib
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
