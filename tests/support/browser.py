"""A headless Chromium for tests, and what it logged and asked for."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import HANG_SECONDS
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

PROGRAMS = ("chromium", "chromedriver")
missing = [name for name in PROGRAMS if shutil.which(name) is None]
needs_browser = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser of 1280 x 900 pixels with a new profile."""
    binary, driver = (shutil.which(name) for name in PROGRAMS)
    options = webdriver.ChromeOptions()
    options.binary_location = str(binary)
    for flag in (*_FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    browser.set_page_load_timeout(HANG_SECONDS)
    browser.set_script_timeout(HANG_SECONDS)
    try:
        yield browser
    finally:
        browser.quit()


def open_page(browser: webdriver.Chrome, page: Path) -> None:
    """Open a file and wait for all of it; what was logged before is forgotten."""
    browser.get("about:blank")
    logged(browser)
    requests(browser)
    browser.get(page.as_uri())
    # On a busy machine the driver has come back from a page that was not there yet.
    WebDriverWait(browser, HANG_SECONDS).until(
        lambda one: one.execute_script("return [location.href, document.readyState]") == [page.as_uri(), "complete"]
    )


def logged(browser: webdriver.Chrome) -> list[str]:
    """The messages of the browser's console since the last call."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: webdriver.Chrome) -> list[str]:
    """The addresses that were asked for since the last call; what a page holds itself as data has none."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    opened = [one["params"]["url"] for one in messages if one["method"] == "Network.webSocketCreated"]
    return [address for address in sent + opened if not address.startswith("data:")]
