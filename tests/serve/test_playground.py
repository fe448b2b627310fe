"""The playground in a real browser: what it shows, with the mouse, with the keyboard alone, in light and dark."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.servers import ALICE, Running, running, tokens
from wasm_sandbox.serve.playground import PAGE, POLICY

CHROMIUM = shutil.which("chromium")

CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = numbers(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("main *, header *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.disabled || node.closest("select")) continue;
    const [one, other] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    found.push([node.textContent.trim().slice(0, 30), (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)]);
  }
  return found;
}"""


def test_the_page_is_whole_by_itself_and_may_load_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.content == PAGE
    text = PAGE.decode()
    assert not re.findall(r"(?:src|href|url|import)\s*[=(]\s*[\"']?(?:https?:)?//", text)
    assert POLICY.count("sha256-") == 2
    assert "unsafe" not in POLICY
    assert not re.findall(r"\bon\w+=|style=\"|innerHTML|insertAdjacentHTML|\beval\b|document\.write", text)


browser_only = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="there is no playwright (the group browser)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """The page, ready; nothing went wrong in it, and it asked this server alone."""
    yield from opened(browser, server)


def opened(browser: Any, server: Running, **options: Any) -> Iterator[Any]:
    """The page of a server."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    made, wrong, asked = context.new_page(), [], []
    made.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda request: asked.append(request.url))
    made.goto(server.url)
    made.wait_for_selector("#status.good")
    yield made
    context.close()
    assert [text for text in wrong if "the server responded with a status of 4" not in text] == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def wait(page: Any, expression: str) -> None:
    """Wait until an expression is true; Playwright's own way is forbidden by the page's policy."""
    began = time.monotonic()
    while not page.evaluate(expression):
        assert time.monotonic() - began < 20, page.inner_text("#status")
        page.wait_for_timeout(10)


def fill(page: Any, source: str, args: str = "{}") -> None:
    page.fill("#source", source)
    page.fill("#args", args)


def run(page: Any, source: str, args: str = "{}") -> str:
    """What the page says after a run."""
    fill(page, source, args)
    page.click("#run")
    wait(page, "document.getElementById('run').disabled === false")
    said: str = page.inner_text("#status")
    return said


@browser_only
@pytest.mark.long
class TestInABrowser:
    def test_a_program_shows_output_value_and_what_it_used(self, page: Any) -> None:
        assert run(page, "print('hi', n)\nn + 1", '{"n": 41}') == "Done"
        assert (page.inner_text("#output").strip(), page.inner_text("#value")) == ("hi 41", "42")
        for what, unit in (("time", "s"), ("fuel", "k"), ("memory", "MiB")):
            assert unit in page.inner_text(f"#used-{what}-value")
        assert 0 < page.evaluate("document.getElementById('used-memory').value") < 1

    def test_output_is_there_while_the_program_runs_and_it_can_be_stopped(self, page: Any, server: Running) -> None:
        fill(page, "print('first', flush=True)\nprogress(1, 4, 'a quarter')\nwhile True: pass")
        page.click("#run")
        wait(page, "document.getElementById('output').textContent.includes('first')")
        page.wait_for_selector("#progress-row:not([hidden])")
        assert page.inner_text("#status") == "Running…"
        assert page.is_disabled("#run")
        page.click("#stop")
        wait(page, "document.getElementById('status').textContent === 'Stopped'")
        wait(page, "document.getElementById('run').disabled === false")
        assert run(page, "1") == "Done"
        assert server.app.admission.running == 0

    def test_a_tool_takes_arguments_and_shows_its_value(self, page: Any) -> None:
        page.check("input[value=tool]")
        assert page.inner_text("#args-label").startswith("Arguments")
        assert run(page, "def add(a: int, b: int):\n    return {'sum': a + b}", '{"a": 1, "b": 2}') == "Done"
        assert page.inner_text("#value") == '{\n  "sum": 3\n}'
        assert run(page, "def add(a: int, b: int):\n    return a + b", '{"a": "x", "b": 2}') == "Failed"
        assert "bad arguments" in page.inner_text("#error-part")

    def test_pictures_are_shown_and_described(self, page: Any) -> None:
        page.select_option("#example", "Picture")
        page.click("#run")
        picture = page.wait_for_selector("#pictures img")
        assert picture.get_attribute("alt") == "A damped wave"
        wait(page, "document.querySelector('#pictures img').naturalWidth === 400")

    def test_nothing_that_a_guest_shows_becomes_part_of_the_page(self, page: Any) -> None:
        bad = "<img src=x onerror=document.title=1><script>document.title=1</script>"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" onload="document.title=1"><script>document.title=1</script></svg>'
        )
        code = (
            f"bad = {bad!r}\nclass A:\n    def _repr_html_(self): return bad\n    def __repr__(self): return ''\n"
            f"class B:\n    def _repr_svg_(self): return {svg!r}\n    def __repr__(self): return bad\n"
            "print(bad)\ndisplay(A())\ndisplay(B())\nraise ValueError(bad)"
        )
        title = page.title()
        assert run(page, code) == "Failed"
        page.wait_for_timeout(200)
        assert page.title() == title
        assert page.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0
        assert bad in page.inner_text("#output")

    def test_an_error_shows_its_traceback_once(self, page: Any) -> None:
        assert run(page, "print('before')\n1/0") == "Failed"
        assert page.inner_text("#error-part").startswith("tool exception: division by zero")
        assert "ZeroDivisionError" in page.inner_text("#traceback")
        assert page.inner_text("#output").strip() == "before"
        assert run(page, "while True: pass", '{"x": [}') == "Variables (a JSON object):"
        assert page.evaluate("document.activeElement.id") == "args"

    def test_limits_are_those_of_the_sliders(self, page: Any) -> None:
        page.focus("#fuel")
        page.keyboard.press("Home")
        assert page.inner_text("#fuel-value") == "1 M"
        assert page.get_attribute("#fuel", "aria-valuetext") == "1 M"
        assert run(page, "while True: pass") == "Failed"
        assert page.inner_text("#error-kind") == "out of fuel:"
        assert page.inner_text("#used-fuel-value").endswith("of 1 M")

    def test_a_session_is_kept_taken_back_forked_and_closed(self, page: Any, server: Running) -> None:
        page.check("#keep")
        run(page, "x = 1")
        run(page, "x = 2")
        page.click("#back")
        wait(page, "document.getElementById('status').textContent.includes('taken back')")
        run(page, "x")
        assert page.inner_text("#value") == "1"
        page.click("#fork")
        wait(page, "document.getElementById('session').selectedOptions[0].text.includes('a fork of')")
        run(page, "x = 'fork'\nx")
        page.select_option("#session", label="session 1")
        run(page, "x")
        assert page.inner_text("#value") == "1"
        for left in (1, 0):
            page.click("#close")
            wait(page, "document.getElementById('status').textContent === 'The session was closed'")
            if left:
                page.select_option("#session", index=1)
        with server.client() as client:
            assert client.get("/v1/sessions").json() == {"sessions": []}

    def test_the_keyboard_is_enough(self, page: Any) -> None:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "source"
        page.keyboard.press("Control+A")
        page.keyboard.type("for n in range(2):\nprint(n)")  # Enter indents
        assert page.input_value("#source") == "for n in range(2):\n    print(n)"
        page.keyboard.press("Control+Enter")
        wait(page, "document.getElementById('status').textContent === 'Done'")
        assert page.inner_text("#output").split() == ["0", "1"]
        page.keyboard.press("Control+A")
        page.keyboard.type("while True: pass")
        page.keyboard.press("Control+Enter")
        wait(page, "document.getElementById('stop').disabled === false")
        page.keyboard.press("Escape")
        wait(page, "document.getElementById('status').textContent === 'Stopped'")
        wait(page, "document.getElementById('run').disabled === false")
        order = ["args", "run", "keep", "time", "fuel", "memory", "deterministic", "image", "output"]
        reached = []
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert [name for name in reached if name in order][: len(order)] == order

    def test_everything_that_can_be_used_has_a_name_for_a_screen_reader(self, page: Any) -> None:
        run(page, "print(1)\n1/0")
        nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "checkbox", "combobox", "log", "meter", "radio", "slider", "textbox", "group", "form"}
        found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node]
        assert [role for role, name in found if role in roles and not name] == []
        assert roles | {"alert", "status", "main"} <= {role for role, _ in found}

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_light_and_dark_can_be_read(self, browser: Any, server: Running, theme: str, tmp_path: Path) -> None:
        for page in opened(browser, server, color_scheme=theme):
            run(page, "print('out')\nimport sys\nprint('err', file=sys.stderr)\n1/0")
            found = page.evaluate(CONTRASTS)
            assert len(found) > 20
            assert [one for one in found if one[1] < 4.5] == []
            light = page.evaluate("getComputedStyle(document.body).backgroundColor")
            page.select_option("#theme", "dark" if theme == "light" else "light")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
            assert [one for one in page.evaluate(CONTRASTS) if one[1] < 4.5] == []

    def test_a_narrow_screen_scrolls_one_way_only(self, browser: Any, server: Running) -> None:
        for page in opened(browser, server):
            page.set_viewport_size({"width": 360, "height": 700})
            run(page, "print('x' * 500)\n1/0")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360

    def test_a_server_with_tokens_asks_for_one(self, browser: Any, tmp_path: Path) -> None:
        ceiling = "limits = { timeout_seconds = 2.0, fuel = 1000000000 }"
        with running(tokens=tokens(tmp_path, alice=ceiling)) as server:
            context = browser.new_context()
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_selector("#token-row:not([hidden])")
            assert page.evaluate("document.activeElement.id") == "token"
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            page.wait_for_selector("#status.bad")
            page.fill("#token", ALICE)
            page.keyboard.press("Enter")
            page.wait_for_selector("#status.good")
            assert page.inner_text("#fuel-value") == "1 G"
            assert run(page, "6 * 7") == "Done"
            assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
            context.close()
