"""The page of a report: it needs nothing but itself, and shows texts as texts; in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.report_runs import HOSTILE, Words, copied, made_up_run

from distill.report.groups import shortened_paths
from distill.report.page import breakable, report


def test_texts_of_runs_are_shown_as_text(report_page):
    words = Words(report_page.read_text())
    assert "img" not in words.tags
    assert words.tags.count("script") == 2  # the data and our own
    assert HOSTILE in words.text
    assert "</script><script>alert(2)</script>?" in words.text


def test_the_page_needs_nothing_but_itself_and_is_the_same_every_time(photo_runs, report_page, tmp_path):
    text = report_page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    report(photo_runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_numbers_that_are_none_do_not_reach_the_page(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    lines = (folder / "cls-0" / "metrics.jsonl").read_text().splitlines()
    odd = [re.sub(r'"loss_total": [^,]+', '"loss_total": NaN', line) for line in lines]
    (folder / "cls-0" / "metrics.jsonl").write_text("\n".join(odd) + "\n")
    report(folder, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    kept = [
        *re.findall(r"data-chart='(.*?)'", text),
        re.search(r'id="map-data">(.*?)</script>', text, re.S)[1],
    ]
    assert len(kept) > 5
    for one in kept:
        json.loads(one, parse_constant=pytest.fail)


def test_long_names_are_broken_between_their_words_alone_and_paths_are_short():
    assert breakable("checked_blue,lr=0.001") == "checked_<wbr>blue,<wbr>lr=0.001"
    assert breakable("<b>23.9 ± 1.9") == "&lt;b&gt;23.9\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.9"
    assert (
        shortened_paths("local-dir:/home/me/models/teacher, its own") == "local-dir:…/models/teacher, its own"
    )
    assert shortened_paths("hf-hub:org/name") == "hf-hub:org/name"


# The page in a browser
@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium, and the machine's own driver."""
    chromium, driver = (Path(shutil.which(name) or "") for name in ("chromium", "chromedriver"))
    if not (chromium.is_file() and driver.is_file()):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    flags = (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync"
    )
    for flag in [*flags.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(str(driver)))
    yield chrome
    chrome.quit()


@pytest.fixture
def opened(browser, report_page):
    size(browser, 1280)
    browser.get(report_page.as_uri())
    return browser


def size(browser, width):
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)


def test_the_page_runs_without_an_error_and_asks_the_network_for_nothing(opened):
    assert opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert opened.get_log("browser") == []
    assert opened.execute_script("return document.querySelectorAll('#map-student .dot').length") == 18


def test_the_map_draws_the_first_axis_across_and_the_second_up(opened, report_page):
    data = json.loads(re.search(r'id="map-data">(.*?)</script>', report_page.read_text(), re.S)[1])
    centres = """
        const centre = dot => { const b = dot.getBBox(); return [b.x + b.width / 2, -(b.y + b.height / 2)]; };
        return [...document.querySelectorAll(arguments[0] + " .dot")].map(centre);
    """
    for panel, places in (("#map-teacher", data["teacher"]), ("#map-student", data["students"][0]["places"])):
        drawn = opened.execute_script(centres, panel)
        assert sorted([round(x), round(y)] for x, y in drawn) == sorted(places)
        across, up = opened.find_elements("css selector", f"{panel} .axis-name")
        assert across.get_attribute("textContent").startswith("principal component 1")
        assert across.get_attribute("transform") is None
        assert "rotate(-90)" in up.get_attribute("transform")


def test_a_heading_sorts_its_table_both_ways(opened):
    table = "document.querySelector('#classes table')"
    column = (
        f"return [...{table}.tBodies[0].rows].map(row => Number(row.cells[2].dataset.v))"  # the teacher's
    )
    head = opened.find_elements("css selector", "#classes table:first-of-type thead th")[2]
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.execute_script(column) == sorted(opened.execute_script(column), reverse=True)
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert opened.execute_script(column) == sorted(opened.execute_script(column))


def test_a_point_is_named_under_the_mouse_and_with_the_keyboard(opened):
    from selenium.webdriver import ActionChains, Keys

    tip, line = (opened.find_element("css selector", name) for name in ("#tip", "#photos-loss-cls .series"))
    assert not tip.is_displayed()
    mark = opened.find_element("css selector", "#photos-scatter .mark")
    ActionChains(opened).scroll_to_element(mark).perform()
    # A page that scrolls hides the tooltip, and says so a frame later.
    opened.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    ActionChains(opened).move_to_element(mark).perform()
    assert tip.is_displayed()
    assert "OOD, macro accuracy (%)" in tip.text
    opened.execute_script("arguments[0].focus()", line)
    assert "epoch: 2" in tip.text
    line.send_keys(Keys.ARROW_LEFT)
    assert "epoch: 1" in tip.text


def test_the_theme_follows_the_button(opened):
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = opened.execute_script(ground)
    opened.find_element("id", "theme").click()
    assert opened.execute_script(ground) != before
    opened.find_element("id", "theme").click()
    assert opened.execute_script(ground) == before


def test_the_page_does_not_scroll_sideways_on_a_phone(opened):
    size(opened, 390)
    opened.refresh()
    widths = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [390, 390]


def shown_in(browser, chart):
    """The groups that a chart draws."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' .series[data-group]')]"
        ".filter(line => getComputedStyle(line).display !== 'none').map(line => line.dataset.group)",
        chart,
    )


def test_a_setting_is_hidden_in_every_chart_and_stands_out_under_the_mouse(opened):
    from selenium.webdriver import ActionChains

    box = opened.find_element("css selector", "#curves .pick input[type=checkbox]")
    assert shown_in(opened, "#photos-loss-cls") == shown_in(opened, "#photos-scatter") == ["0", "1"]
    box.click()
    assert shown_in(opened, "#photos-loss-cls") == shown_in(opened, "#photos-scatter") == ["1"]
    assert opened.find_element("css selector", "#curves .drawn").text == "1 of 2"
    opened.find_element("css selector", "#curves [data-pick=all]").click()
    assert shown_in(opened, "#photos-loss-cls") == ["0", "1"]
    ActionChains(opened).move_to_element(box).perform()
    opacity = "return [...document.querySelectorAll('#photos-loss-cls .series')].map(e => getComputedStyle(e).opacity)"
    assert opened.execute_script(opacity) == ["1", "0.18"]
    ActionChains(opened).move_to_element(opened.find_element("tag name", "h1")).perform()
    assert opened.execute_script(opacity) == ["1", "1"]


def test_the_arrows_lead_from_line_to_line_and_past_what_is_hidden(opened):
    from selenium.webdriver import Keys

    first = opened.find_element("css selector", "#photos-loss-cls .series")
    opened.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_DOWN)
    group = "return document.activeElement.dataset.group"
    assert opened.execute_script(group) == "1"
    assert "cls + mse" in opened.find_element("id", "tip").text
    opened.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert opened.execute_script(group) == "0"  # after the last the first
    stops = "return [...document.querySelectorAll('#photos-loss-cls .series')].map(e => e.tabIndex)"
    assert opened.execute_script(stops) == [0, -1]
    opened.find_element("css selector", "#curves .pick input[type=checkbox]").click()
    assert opened.execute_script(stops) == [-1, 0]


def test_a_cell_of_a_confusion_matrix_is_named_by_the_arrows(opened):
    from selenium.webdriver import Keys

    matrix = opened.find_element("css selector", ".matrix")
    counts = json.loads(matrix.get_attribute("data-matrix"))
    opened.execute_script("arguments[0].focus()", matrix)
    matrix.send_keys(Keys.ARROW_RIGHT)
    told = opened.find_element("id", "tip").text
    assert told.startswith(
        f"{counts['names'][0]}\ntaken for {counts['names'][1]}: {counts['counts'][0][1]} of "
    )


def test_a_table_is_copied_for_a_spreadsheet_and_for_latex(opened):
    opened.execute_script(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard',"
        " {value: {writeText: async text => { window.copied.push(text); }}})"
    )
    for button in opened.find_elements("css selector", "#results caption .tool")[:2]:
        button.click()
    plain, latex = opened.execute_script("return window.copied")
    heads, *rows = [line.split("\t") for line in plain.splitlines()]
    assert heads[:2] == ["setting", "n"]
    assert [row[0] for row in rows] == ["cls", "cls + mse", "teacher"]
    assert r"\toprule" in latex
    assert r"(\%)" in latex
    assert r"$\pm$" in latex
    assert latex.count("&") == (len(heads) - 1) * (len(rows) + 1)


def test_of_many_settings_a_few_are_drawn_first_and_one_is_found(browser, tmp_path):
    for number in range(12):
        made_up_run(tmp_path / "runs" / f"r{number}", 0, 40.0 + number, f"loss.mse={number}", began=number)
    report(tmp_path / "runs", tmp_path / "report.html", baseline="r3")
    size(browser, 1280)
    browser.get((tmp_path / "report.html").as_uri())
    chart = "#photos-ood-test-accuracy"
    assert shown_in(browser, chart) == ["3", "8", "9", "10", "11"]  # the baseline and the best
    picker = browser.find_element("css selector", "#curves .pick")
    assert picker.get_attribute("open") is None  # no legend of twelve
    browser.execute_script("arguments[0].open = true", picker)
    picker.find_element("css selector", "input[type=search]").send_keys("10 mse")
    (left,) = [item for item in picker.find_elements("tag name", "li") if item.is_displayed()]
    left.find_element("tag name", "label").click()
    assert shown_in(browser, chart) == ["3", "8", "9", "11"]
    picker.find_element("css selector", "[data-pick=all]").click()
    assert len(shown_in(browser, chart)) == 12
    size(browser, 390)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
