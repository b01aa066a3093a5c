"""The HTML page: what is in the file, and what a browser makes of it."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import chromium, logged, needs_browser, open_page, requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from synthetic_runs import TASKS, make_job, write_grid, write_run

from urlbench.reports.html_page import sort_key
from urlbench.reports.report import make_report

pytestmark = pytest.mark.usefixtures("synthetic_suites")

HOSTILE = '<b onclick="alert(1)">&\'Zoë 水</script>'
# With five of them pairs are a matrix, whose colour bar is an image.
AGENTS = ["apt", "cic", "diayn", "random", HOSTILE]
REDUCED = "REDUCED BUDGET: preset smoke — not comparable with published numbers"
PARTIAL = "PARTIAL 44/45 runs"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of five agents, three tasks and three seeds, one run of which is missing."""
    root = tmp_path_factory.mktemp("page") / "runs"
    write_grid(root, AGENTS, 3)
    shutil.rmtree(root / make_job("random", "arm_left", 2, snapshot=0).path)
    (path,) = make_report(root, "toy", None, "smoke", reps=200, formats=("html",), allow_partial=True)
    return path


class Elements(HTMLParser):
    """Every start tag with its attributes, and the texts inside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def elements(page) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


def test_the_page_refers_to_nothing_outside_itself(elements):
    for tag, attributes in elements.tags:
        assert tag not in {"link", "img", "iframe", "base", "object", "embed"}
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "action", "srcset", "data", "poster"}:
                assert str(value).startswith(("#", "data:image/png;base64,")), (tag, name, value)
            elif not name.startswith("xmlns"):
                assert "://" not in str(value), (tag, name, value)


def test_only_the_pages_own_script_may_run(elements):
    (policy,) = (tag["content"] for tag in elements.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    data, script = elements.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert json.loads(data)["scores"][0]["agent"] == HOSTILE


def test_names_are_text_and_never_tags(page, elements):
    assert not elements.all("b")
    assert all(not name.startswith("on") for _, attributes in elements.tags for name in attributes)
    assert HOSTILE not in page.read_text(encoding="utf-8")
    assert "&lt;b onclick=" in page.read_text(encoding="utf-8")


def test_ids_are_those_of_one_element_each_and_are_found(elements):
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.tags:
        for name, value in attributes.items():
            for wanted in re.findall(r"url\(#([^)]*)\)", str(value)):
                assert wanted in ids
            if name in {"href", "xlink:href"} and not str(value).startswith("data:"):
                assert str(value)[1:] in ids


def test_every_number_names_its_runs(elements):
    data = json.loads(elements.scripts[0])
    used = {int(button["data-source"]) for button in elements.all("button") if "data-source" in button}
    assert used == set(range(len(data["sources"])))
    for source in data["sources"]:
        assert set(source["agents"]) <= set(AGENTS)
        assert set(source["tasks"]) <= {"walker_walk", "walker_run", "arm_left"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("312.4 ± 20.1 (n=3)", "312.4"),
        ("-0.512 [-0.601, 0.413]", "-0.512"),
        ("31/50 = 0.620 [0.482, 0.741], runs 0.580 to 0.640", "0.620"),
        ("1,234.5", "1234.5"),
        ("1.5e-05", "1.5e-05"),
        ("— (n=0)", ""),
        ("none", ""),
    ],
)
def test_rows_are_sorted_by_the_value_of_a_cell(text, key):
    assert sort_key(text, "number") == key


def test_words_are_sorted_as_they_are():
    assert sort_key("7 = seven", "word") == "7 = seven"


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def opened(browser, page) -> Iterator[Chrome]:
    """The page in a fresh state; afterwards nothing was complained about and nothing else asked for."""
    open_page(browser, page)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert logged(browser) == []
    assert requests(browser) == [page.as_uri()]


def find(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def column(browser: Chrome, table: str, number: int) -> list[str]:
    """The texts of a column from the top; "" for rows that are not shown."""
    return [cell.text for cell in find(browser, f"[data-name={table}] table tbody tr > :nth-child({number})")]


def header(browser: Chrome, table: str, number: int) -> WebElement:
    (one,) = find(browser, f"[data-name={table}] table thead th:nth-child({number})")
    return one


def box(browser: Chrome, value: str) -> WebElement:
    (one,) = (one for one in find(browser, ".filters input") if one.get_attribute("value") == value)
    return one


def view(browser: Chrome) -> list[float]:
    """The view box of the enlarged figure."""
    text = browser.execute_script("return document.querySelector('#zoom svg').getAttribute('viewBox')")
    return [float(number) for number in text.split()]


def value(text: str) -> float:
    return float(sort_key(text, "number"))


@pytest.mark.slow
@needs_browser
def test_a_column_sorts_both_ways_and_back(opened):
    start = column(opened, "tasks", 2)
    head = header(opened, "tasks", 3)
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [value(text) for text in column(opened, "tasks", 3)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 3
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    assert [value(text) for text in column(opened, "tasks", 3)] == values[::-1]
    button.send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "none"
    assert column(opened, "tasks", 2) == start


@pytest.mark.slow
@needs_browser
def test_words_sort_by_letters_and_numbers_by_size(opened):
    header(opened, "tasks", 2).find_element(By.TAG_NAME, "button").click()
    assert column(opened, "tasks", 2) == ["arm_left", "walker_run", "walker_walk"]
    assert header(opened, "tasks", 2).get_attribute("aria-sort") == "ascending"
    header(opened, "tasks", 8).find_element(By.TAG_NAME, "button").click()
    assert column(opened, "tasks", 8) == ["200", "100", "50"]
    assert header(opened, "tasks", 2).get_attribute("aria-sort") == "none"


@pytest.mark.slow
@needs_browser
def test_an_agent_can_be_left_out_everywhere(opened):
    assert column(opened, "aggregates", 1) == [HOSTILE, "apt", "cic", "diayn", "random"]
    before = column(opened, "aggregates", 2)
    box(opened, "apt").click()
    assert column(opened, "aggregates", 1) == [HOSTILE, "", "cic", "diayn", "random"]
    assert column(opened, "aggregates", 2) == [before[0], "", *before[2:]]
    shown = [head.text for head in find(opened, "[data-name=tasks] thead th") if head.is_displayed()]
    assert shown == ["domain", "task", HOSTILE, "cic", "diayn", "random", "reference"]
    assert not find(opened, "[data-name=curve-apt]")[0].is_displayed()
    assert find(opened, "[data-name=curve-random]")[0].is_displayed()
    (button,) = find(opened, ".filters button")
    button.click()
    assert column(opened, "aggregates", 2) == before


@pytest.mark.slow
@needs_browser
def test_figures_fade_what_is_left_out(opened):
    def faded(figure: str) -> set[tuple[str, ...]]:
        """The agents and the domain of each part that is faded."""
        parts = find(opened, f"[data-name={figure}] [data-of]")
        assert len(parts) > 3, figure
        faint = [part for part in parts if float(part.value_of_css_property("opacity")) < 0.1]
        shown = [json.loads(str(part.get_attribute("data-of"))) for part in faint]
        return {(*one["agents"], one["domain"]) for one in shown}

    figures = ("aggregates", "domains", "curves")
    assert [faded(figure) for figure in figures] == [set(), set(), set()]
    box(opened, HOSTILE).click()
    assert [faded(figure) for figure in figures] == [{(HOSTILE, "")}] * 3
    find(opened, ".filters button")[0].click()
    box(opened, "arm").click()
    assert [faded(figure) for figure in figures] == [set(), {("arm",)}, {("arm",)}]


@pytest.mark.slow
@needs_browser
def test_a_domain_can_be_left_out(opened):
    overall = column(opened, "aggregates", 2)
    box(opened, "walker").click()
    assert column(opened, "tasks", 2) == ["", "", "arm_left"]
    assert [head.text for head in find(opened, "[data-name=domains] thead th") if head.is_displayed()] == [
        "agent",
        "arm",
    ]
    # A number over both domains stays what it is.
    assert column(opened, "aggregates", 2) == overall


@pytest.mark.slow
@needs_browser
def test_a_number_shows_the_runs_it_is_made_of(opened):
    (panel,) = find(opened, "#origin")
    assert not panel.is_displayed()
    (cell,) = (
        cell
        for cell in find(opened, "[data-name=tasks] tbody tr:nth-child(1) .origin")
        if cell.text == "50.0 ± 17.3 (n=3)"
    )
    cell.click()
    assert panel.is_displayed()
    jobs = [make_job("apt", "walker_walk", seed) for seed in range(3)]
    rows = [[one.text for one in row.find_elements(By.TAG_NAME, "td")] for row in find(opened, "#origin tbody tr")]
    finals = [float(row[2]) for row in rows]
    assert sum(finals) / 3 == pytest.approx(value(cell.text), abs=0.05)
    assert [row[:2] + row[-2:] for row in rows] == [
        ["walker_walk", str(seed), job.id, job.path] for seed, job in enumerate(jobs)
    ]
    assert [float(row[3]) for row in rows] == [final / 100 for final in finals]
    for words in (
        "walker · walker_walk · apt",
        "3 runs of apt on walker_walk",
        f"apt: {jobs[0].path.split('/')[1].removeprefix('apt-')}",
        "urlbench run --suite toy --agent apt",
        "urlbench report --suite toy --preset smoke",
        "torch 2.13.0",
        "0123456789ab",
        "Toy & Sons",
        "2024-05-06",
        REDUCED,
        PARTIAL,
    ):
        assert words in panel.text
    panel.send_keys(Keys.ESCAPE)
    assert not panel.is_displayed()


@pytest.mark.slow
@needs_browser
def test_a_number_of_a_curve_shows_what_was_measured_then(opened):
    (cell,) = find(opened, "[data-name=curve-random] tbody tr:nth-child(3) .origin[data-source]:not(td:last-child *)")
    cell.click()
    rows = [[one.text for one in row.find_elements(By.TAG_NAME, "td")] for row in find(opened, "#origin tbody tr")]
    assert [one.text for one in find(opened, "#origin thead th")][:3] == ["task", "seed", "return at 100 frames"]
    assert [row[1] for row in rows] == ["0", "1"]
    assert sum(float(row[2]) for row in rows) / 2 == pytest.approx(value(cell.text), abs=0.05)
    find(opened, "#origin .close")[0].click()


@pytest.mark.slow
@needs_browser
def test_a_published_number_shows_its_source(browser, tmp_path):
    agents = ["baseline:choreographer-2023/CIC", "baseline:choreographer-2023/RND"]
    (path,) = make_report(tmp_path, "urlb-states", agents, "paper", reps=200, formats=("html",))
    open_page(browser, path)
    find(browser, "[data-name=tasks] tbody tr:nth-child(1) .origin")[0].click()
    (panel,) = find(browser, "#origin")
    rows = [[one.text for one in row.find_elements(By.TAG_NAME, "td")] for row in find(browser, "#origin tbody tr")]
    mean, error, reference = 959, 2, 984
    assert rows == [["walker_stand", "mean of 10", f"{mean} ± {error}", f"{mean / reference:.6g}"]]
    assert "1 published mean of CIC on walker_stand" in panel.text
    assert "CIC: choreographer-2023 Table 2" in panel.text
    assert logged(browser) == []
    assert requests(browser) == [path.as_uri()]


@pytest.mark.slow
@needs_browser
def test_a_number_of_another_snapshot_shows_its_own_runs(browser, tmp_path):
    write_grid(tmp_path, ["apt", "random"], 2)
    for task in TASKS:
        for seed in range(2):
            write_run(tmp_path, make_job("apt", task, seed, snapshot=500), 10.0)
    (path,) = make_report(tmp_path, "toy", None, "smoke", reps=200, formats=("html",), snapshots="all")
    open_page(browser, path)
    for place, snapshot in enumerate((500, 1000)):
        find(browser, "[data-name=pretraining] tbody tr:nth-child(1) .origin")[place].click()
        paths = [row.text.split()[-1] for row in find(browser, "#origin tbody tr")]
        assert sorted(paths) == sorted(
            make_job("apt", task, seed, snapshot=snapshot).path for task in TASKS for seed in range(2)
        )
        find(browser, "#origin .close")[0].click()
    find(browser, "[data-name=pretraining] tbody tr:nth-child(2) .origin")[0].click()
    assert len(find(browser, "#origin tbody tr")) == 6
    assert logged(browser) == []


@pytest.mark.slow
@needs_browser
def test_a_hostile_name_is_shown_and_does_nothing(opened):
    find(opened, "[data-name=aggregates] tbody tr:nth-child(1) .origin")[0].click()
    (panel,) = find(opened, "#origin")
    assert f"9 runs of {HOSTILE} on walker_walk, walker_run, arm_left" in panel.text
    assert find(opened, "b") == []


@pytest.mark.slow
@needs_browser
def test_a_figure_can_be_enlarged_and_moved(opened):
    picture = find(opened, "[data-name=curves] .picture")[0]
    picture.send_keys(Keys.ENTER)
    (dialog,) = find(opened, "#zoom")
    assert dialog.is_displayed()
    start = view(opened)
    find(opened, "[data-step=in]")[0].click()
    larger = view(opened)
    assert larger[2:] == pytest.approx([0.7 * size for size in start[2:]])
    assert larger[0] + larger[2] / 2 == pytest.approx(start[2] / 2)
    dialog.send_keys(Keys.ARROW_RIGHT)
    assert view(opened) == pytest.approx([larger[0] + larger[2] / 10, *larger[1:]])
    (svg,) = find(opened, "#zoom svg")
    before = view(opened)
    opened.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseWheel", "x": 640, "y": 450, "deltaX": 0, "deltaY": -200}
    )
    opened.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert view(opened)[2] < before[2]
    before = view(opened)
    for kind, x in (("mousePressed", 640), ("mouseMoved", 540), ("mouseReleased", 540)):
        event = {"type": kind, "x": x, "y": 450, "button": "left", "buttons": 1, "clickCount": 1}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    # Dragged to the left, the picture shows more of its right.
    assert view(opened)[0] > before[0]
    assert view(opened)[1:] == pytest.approx(before[1:])
    find(opened, "[data-step=whole]")[0].click()
    assert view(opened) == start
    dialog.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert svg == picture.find_element(By.TAG_NAME, "svg")
    assert svg.is_displayed()
    box_again = opened.execute_script("return arguments[0].getAttribute('viewBox')", svg)
    assert [float(number) for number in box_again.split()] == start


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_tables_and_not_the_page(opened, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    inner, outer = opened.execute_script(
        "const one = document.querySelector('[data-name=tasks] .scroll'); return [one.scrollWidth, one.clientWidth]"
    )
    assert inner > outer
    find(opened, "[data-name=tasks] .origin")[0].click()
    left, right = opened.execute_script(
        "const one = document.querySelector('#origin').getBoundingClientRect(); return [one.left, one.right]"
    )
    assert 0 <= left < right <= width


@pytest.mark.slow
@needs_browser
def test_marks_stay_in_sight(opened):
    opened.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    (marks,) = find(opened, ".marks")
    top, bottom = opened.execute_script(
        "const one = arguments[0].getBoundingClientRect(); return [one.top, one.bottom]", marks
    )
    assert 0 <= top < bottom <= 900
    assert marks.text.splitlines() == [REDUCED, PARTIAL]
    for section in find(opened, "section:not(#provenance)"):
        assert REDUCED in section.text
        assert PARTIAL in section.text


@pytest.mark.slow
@needs_browser
def test_all_is_printed_whatever_is_left_out(opened):
    box(opened, "apt").click()
    find(opened, "[data-name=aggregates] .origin")[0].click()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert column(opened, "aggregates", 1) == [HOSTILE, "apt", "cic", "diayn", "random"]
    for selector in (".filters", "nav", "#origin"):
        assert not find(opened, selector)[0].is_displayed(), selector
    hidden = [section.get_attribute("data-name") for section in find(opened, "section") if not section.is_displayed()]
    assert hidden == []
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")


@pytest.mark.slow
@needs_browser
def test_dark_and_light_follow_the_reader(opened):
    backgrounds = set()
    for scheme in ("light", "dark"):
        opened.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        backgrounds.add(find(opened, "body")[0].value_of_css_property("background-color"))
    assert backgrounds == {"rgba(255, 255, 255, 1)", "rgba(20, 24, 29, 1)"}


@pytest.mark.slow
@needs_browser
def test_the_browser_would_refuse_to_fetch_anything(browser, page):
    open_page(browser, page)
    refused = browser.execute_async_script(
        "document.addEventListener('securitypolicyviolation', (event) => arguments[0](event.blockedURI));"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">');"
    )
    assert refused == "http://127.0.0.1:9/x.png"
    assert any("violates" in message for message in logged(browser))
    assert "http://127.0.0.1:9/x.png" in requests(browser)
