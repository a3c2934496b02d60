"""The pages of a report in a browser, from files: sorting, filters, keys, pictures, light and dark, and no requests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.site.runs import analyse, certify, corrupt, make_run, make_study, search, study_subject, subjects

from ctbench.report.site import write_report
from ctbench.results import Measurement

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
PATIENCE = 20_000  # milliseconds; other work may run on the machine


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A report about runs with seeds, radii, published results and a hostile name, and a study."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [make_run(folder / f"ibp-{seed}", "c" * (6 + seed) + "ffum"[: 4 - seed], seed=seed) for seed in range(3)]
    runs += [make_run(folder / "pgd", "ffffffffum", method="pgd", settings={"stages": ["Bound(domain=Interval())"]})]
    runs += [make_run(folder / "mnist", "ccccccccfm", dataset="mnist", method="sabr"), make_run(folder / "waiting", "")]
    certify(runs[0], "cccccfffum", eps=0.2)
    search(runs[0])
    for place, run in enumerate(runs[:3]):
        values = [0.1 + 0.1 * place, 0.2, 0.3, 0.4]
        layers = {f"layer {k}: {kind}": 0.1 * k for k in (1, 2) for kind in ("sampled", "interval")}
        analyse(run, "fragmentation", Measurement({"sampled": values, "interval": 0.5, **layers}))
        analyse(run, "tightness", Measurement({"tightness": values}))
        analyse(run, "growth", *(Measurement({"<b>whole</b>": 3.0 / x}, x) for x in (0.1, 0.5, 1.0)))
        corrupt(run, [8, 2, 9 - place, 1])
    names = ["first", "second", "third", "<script>alert(1)</script>", "mnist", "waiting"]
    study = study_subject(make_study(folder / "study"))
    return write_report(subjects(runs, names), folder / "site", studies=[study], title="Ours").parent


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"]  # which containers do not have; the pages are our own
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=6 * PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator[sync_api.Page]:
    """A page whose errors fail the test, and which asks nothing of any machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    page, faults = context.new_page(), list[str]()
    page.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.on("requestfailed", lambda asked: faults.append(f"failed: {asked.url}"))
    yield page
    context.close()
    assert faults == []


def column(page: sync_api.Page, place: int, table: str = ".setting table >> nth=0") -> list[str]:
    """The texts of the visible cells of a column."""
    rows = page.locator(table).locator("tbody tr:visible")
    return [row.locator("th, td").nth(place).inner_text().split("\n")[0] for row in rows.all()]


def test_every_page_opens_and_every_picture_loads(page, site):
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        assert page.locator("h1").count() == 1, path.name
        assert page.locator("main").get_attribute("id") == "main"
        broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
        assert broken == 0, path.name
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path.name} is {wide} pixels too wide"
        alone = page.evaluate(
            "[...document.querySelectorAll('table')].filter((table) => !table.caption "
            "|| [...table.tHead.rows[0].cells].some((cell) => cell.scope !== 'col')).length"
        )
        assert alone == 0, f"{path.name} has a table without a caption, or headings without a scope"
    page.goto((site / "run-first.html").as_uri())
    assert page.locator(".gallery img").count() > 3


def test_headings_sort_by_numbers_and_by_words(page, site):
    page.goto((site / "index.html").as_uri())
    heading = page.locator(".setting table >> nth=0").locator("thead th")
    assert column(page, 0) == ["ibp", "pgd"]
    assert heading.nth(1).get_attribute("aria-sort") == "descending"
    heading.nth(1).get_by_role("button").click()
    assert column(page, 0) == ["pgd", "ibp"]
    assert heading.nth(1).get_attribute("aria-sort") == "ascending"
    heading.nth(0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert column(page, 0) == ["ibp", "pgd"]
    assert heading.nth(1).get_attribute("aria-sort") is None


def test_numbers_sort_as_numbers_and_what_is_not_there_comes_last(page, site):
    page.goto((site / "study-my-study.html").as_uri())
    table = "section[aria-labelledby=trials] table >> nth=0"
    button = page.locator(table).locator("thead th").nth(4).get_by_role("button")
    button.click()
    assert column(page, 4, table) == ["85.00", "70.00", "-"]
    button.click()
    assert column(page, 4, table) == ["70.00", "85.00", "-"]


def test_search_and_filters(page, site):
    page.goto((site / "index.html").as_uri())
    shown = page.locator("#shown")
    total = shown.inner_text()
    assert total == f"{total.split()[0]} of {total.split()[0]} rows"
    page.get_by_role("searchbox").fill("pgd mnist")
    assert shown.inner_text().startswith("0 of")
    page.get_by_role("searchbox").fill("PGD digits")
    assert shown.inner_text().startswith("1 of")
    assert column(page, 0) == ["pgd"]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("combobox", name="Method").select_option("sabr")
    assert shown.inner_text().startswith("1 of")
    page.get_by_role("combobox", name="Method").select_option("")
    page.get_by_role("combobox", name="Setting").select_option(label="digits, linf, eps 0.2")
    assert page.locator(".setting:visible").count() == 1
    page.get_by_role("combobox", name="Setting").select_option("")
    page.get_by_role("checkbox", name="without remarks only").check()
    assert column(page, 0) == ["ibp"]  # pgd has an incomplete verifier


def test_published_results_can_be_hidden_and_are_hollow(page, site):
    page.goto((site / "index.html").as_uri())
    published = page.locator(".published table")
    assert published.is_visible()
    marks = page.locator(".series.hollow")
    assert marks.evaluate("(group) => getComputedStyle(group).fill") == "rgb(255, 255, 255)"
    page.get_by_role("checkbox", name="published results").uncheck()
    assert not published.is_visible()
    assert not marks.is_visible()
    assert page.locator(".series.marks:not(.hollow)").first.is_visible()


def test_a_mark_says_its_numbers_under_the_pointer_and_in_focus(page, site):
    page.goto((site / "curves.html").as_uri())
    tip, series = page.locator("#tip"), page.locator(".chart[id='front-at-digits-linf-0.1'] .series").first
    assert not tip.is_visible()
    series.locator(".mark circle").first.hover()
    assert tip.is_visible()
    assert "certified" in tip.inner_text()
    assert "mean of 3 seeds" in tip.inner_text()
    page.mouse.move(2, 2)
    assert not tip.is_visible()
    curve = page.locator(".series.line").first
    curve.focus()
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    assert curve.get_attribute("aria-label") == tip.inner_text()
    page.keyboard.press("Home")
    assert tip.inner_text() == first
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_enter_on_a_mark_opens_the_page_of_its_run(page, site):
    page.goto((site / "index.html").as_uri())
    page.locator(".series.marks").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run-*.html")


def test_a_remark_says_what_it_means(page, site):
    page.goto((site / "index.html").as_uri())
    page.locator(".remark").first.focus()
    assert "complete verifier may certify more" in page.locator("#tip").inner_text()


def test_a_page_follows_the_system_in_light_and_dark_and_can_be_switched(page, site):
    page.goto((site / "index.html").as_uri())
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    assert dark != light
    switch = page.locator("#theme")
    switch.click()
    assert switch.inner_text() == "Theme: light"
    assert page.evaluate(colour) == light
    switch.click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(colour) == dark
    page.goto((site / "curves.html").as_uri())
    assert page.evaluate(colour) == dark, "the choice holds on the next page"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    page.goto((site / "index.html").as_uri())
    assert page.locator("thead button").first.is_visible(), "headings are printed"


def test_on_a_phone_nothing_but_tables_is_wider_than_the_screen(page, site):
    page.set_viewport_size({"width": 390, "height": 844})
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path.name
    page.goto((site / "index.html").as_uri())
    best = page.locator(".setting table >> nth=0").locator("tbody td").first.bounding_box()
    assert best is not None
    assert best["x"] + best["width"] < 390, "the certified accuracy is on the first screen"


def test_bars_say_their_numbers(page, site):
    page.goto((site / "agreements.html").as_uri())
    chart = page.locator(".chart").first
    chart.locator(".series rect").first.hover()
    assert "certified by 0: observed" in page.locator("#tip").inner_text()
    page.goto((site / "run-first.html").as_uri())
    page.locator("#certification-0-title").scroll_into_view_if_needed()
    page.locator(".stack span").first.hover()
    assert "samples" in page.locator("#tip").inner_text()


def test_pictures_of_analyses_say_their_numbers_and_lead_to_the_runs(page, site):
    page.goto((site / "analyses.html").as_uri())
    contents = page.locator(".contents a")
    assert contents.first.inner_text() == "fragmentation: digits, linf eps 0.1"
    contents.last.click()
    assert page.url.endswith("#corrupted-ours-digits")
    charts = page.locator("section[aria-labelledby^=analysis-fragmentation] .chart")
    bars = charts.first.locator(".series").nth(1)
    bars.locator("rect").first.hover()
    assert page.locator("#tip").inner_text() == "second, sampled: 0.275 ± 0.048"
    bars.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run-second.html")
    page.locator("#run-second-analysis-growth").scroll_into_view_if_needed()
    assert page.get_by_role("img", name="<b>whole</b>: 3 values").is_visible()


def test_a_hostile_name_is_text(page, site):
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="<script>alert(1)</script>").click()
    assert page.locator("h1").inner_text() == "<script>alert(1)</script>"


def test_the_first_key_leads_to_the_content(page, site):
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_without_scripts_all_is_there_but_the_tools(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert page.locator(".setting table").first.is_visible()
    assert not page.locator(".tools").is_visible()
    assert page.locator(".mark title").first.text_content()
    context.close()
