"""The page at /: its files, and what it does in a real browser (skipped where Chromium is not installed)."""

import contextlib
import shutil

import pytest

PAGES = {"/": "text/html", "/web/app.js": "text/javascript", "/web/stream.js": "text/javascript",
         "/web/routing.js": "text/javascript",
         "/web/style.css": "text/css"}


@pytest.mark.parametrize("path", PAGES)
def test_the_page_is_in_the_binary(server, path):
    status, headers, body = server.request("GET", path)
    assert status == 200
    assert headers["Content-Type"] == PAGES[path] + "; charset=utf-8"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert body
    status, headers, body = server.request("HEAD", path)
    assert status == 200 and body == b""


@pytest.mark.parametrize("path", ["/web/", "/web/none.js", "/web/../main.cc", "/index.html"])
def test_there_is_nothing_else(server, path):
    assert server.get(path)[0] == 404


def test_it_needs_nothing_from_elsewhere(server):
    for path in PAGES:
        text = server.request("GET", path)[2].decode()
        assert "http://" not in text and "https://" not in text, path


# ---- in Chromium -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("Chromium and its driver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    host, port = server.http_address
    browser.get(f"http://{host}:{port}/")
    wait_for(browser, lambda: "tiny" in find(browser, "model").text)
    yield browser
    messages = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # A refused request is logged by the browser itself; nothing else may be.
    assert not [message for message in messages if "400" not in message], messages


def find(browser, identifier):
    return browser.find_element("id", identifier)


def wait_for(browser, condition, seconds=30):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: condition())


def type_into(browser, identifier, text):
    field = find(browser, identifier)
    field.clear()
    field.send_keys(text)


def boxes(browser, role):
    return browser.find_elements("css selector", f".message.{role}")


def idle(browser):
    return find(browser, "send").is_enabled()


def ask(browser, text):
    from selenium.webdriver.common.keys import Keys

    find(browser, "prompt").send_keys(text, Keys.ENTER)
    wait_for(browser, lambda: not idle(browser) or boxes(browser, "assistant"))


def test_an_answer_streams_and_is_summed_up(page):
    type_into(page, "max_tokens", "12")
    ask(page, "Hello there")
    wait_for(page, lambda: idle(page))
    assert boxes(page, "user")[-1].text == "Hello there"
    answer = boxes(page, "assistant")[-1]
    assert answer.find_element("class name", "text").text
    assert "prompt tokens, first token after" in answer.find_element("class name", "facts").text


def test_a_dropped_file_becomes_part_of_the_question(page, tmp_path, server):
    document = tmp_path / "story.txt"
    document.write_text("Once upon a time. " * 300)
    find(page, "file").send_keys(str(document))
    wait_for(page, lambda: "story.txt" in find(page, "documents").text)
    type_into(page, "max_tokens", "2")
    ask(page, "How does it begin?")
    wait_for(page, lambda: idle(page))
    assert "[story.txt]" in boxes(page, "user")[-1].text
    facts = boxes(page, "assistant")[-1].find_element("class name", "facts").text
    assert int(facts.split()[0].replace(",", "")) > 1000, facts
    assert find(page, "documents").text == ""


def test_bytes_that_are_no_text_are_refused(page, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\xff\xfe\x00")
    find(page, "file").send_keys(str(picture))
    wait_for(page, lambda: boxes(page, "assistant"))
    assert "picture.png is not a UTF-8 text file" in boxes(page, "assistant")[-1].text
    assert find(page, "documents").text == ""


def test_the_stop_button_and_escape_end_the_answer(page, server):
    from selenium.webdriver.common.keys import Keys

    type_into(page, "max_tokens", "8000")
    for stop in (lambda: find(page, "stop").click(), lambda: find(page, "prompt").send_keys(Keys.ESCAPE)):
        ask(page, "Go on for long")
        wait_for(page, lambda: boxes(page, "assistant")[-1].find_element("class name", "text").text)
        stop()
        wait_for(page, lambda: idle(page))
        assert "Stopped." in boxes(page, "assistant")[-1].text
        server.wait_idle()
        find(page, "clear").click()


def test_what_the_server_refuses_is_shown(page):
    from selenium.webdriver.support.ui import Select

    Select(find(page, "prefill_mode")).select_by_value("moba")
    type_into(page, "prefill_block", "7")
    ask(page, "Hello")
    wait_for(page, lambda: idle(page))
    failure = boxes(page, "assistant")[-1].find_element("class name", "failure").text
    assert "prefill.block" in failure and "7" in failure


def ask_about_a_story(page):
    """Asks under MoBA in small blocks; the answer's box."""
    from selenium.webdriver.support.ui import Select

    for phase in ("prefill", "decode"):
        Select(find(page, f"{phase}_mode")).select_by_value("moba")
        type_into(page, f"{phase}_block", "128")
        type_into(page, f"{phase}_top_k", "3")
    type_into(page, "max_tokens", "6")
    find(page, "prompt").send_keys(" ".join(f"Line {i} of the story." for i in range(200)))
    ask(page, " How does it end?")
    wait_for(page, lambda: idle(page))
    return boxes(page, "assistant")[-1]


def painted(page, canvas):
    """How many kinds of pixels a canvas shows."""
    return page.execute_script("""
        const {width, height} = arguments[0];
        const pixels = new Uint32Array(arguments[0].getContext('2d').getImageData(0, 0, width, height).data.buffer);
        return new Set(pixels).size""", canvas)


def test_it_shows_where_the_model_looked(page):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    box = ask_about_a_story(page)
    canvas = box.find_element("css selector", ".routing canvas")
    wait_for(page, lambda: painted(page, canvas) > 3)
    where = box.find_element("css selector", ".routing .where")
    text = box.find_element("css selector", ".routing .block-text")

    # By keyboard: every block has its text, listed or not, the answer's end included.
    canvas.send_keys(Keys.HOME)
    wait_for(page, lambda: "Layer 1, tokens 0 to 127" in where.text and "Line 0 of the story" in text.text)
    assert "<|begin_of_text|>" in text.text
    canvas.send_keys(Keys.ARROW_RIGHT)
    wait_for(page, lambda: "tokens 128 to 255" in where.text and "of the story" in text.text)
    for _ in range(5):
        canvas.send_keys(Keys.ARROW_DOWN)
    assert "Layer 4" in where.text
    canvas.send_keys(Keys.END)
    wait_for(page, lambda: "also by itself" in where.text and "How does it end?" in text.text)

    # By mouse.
    from selenium.webdriver import ActionChains
    ActionChains(page).move_to_element_with_offset(canvas, 2 - canvas.size["width"] // 2, 0).perform()
    wait_for(page, lambda: "tokens 0 to 127" in where.text)

    # The list beside it.
    entries = box.find_elements("css selector", ".routing .top li")
    assert entries and "chosen in" in entries[0].text and "of the story" in entries[0].text
    button = entries[-1].find_element("tag name", "button")
    page.execute_script("arguments[0].focus()", button)
    first = button.text.split()[1]
    wait_for(page, lambda: f"tokens {first} to" in where.text)

    # One head alone.
    canvas.send_keys(Keys.END)
    together = where.text
    heads = Select(box.find_element("css selector", ".routing select"))
    assert len(heads.options) > 2
    heads.select_by_index(1)
    assert where.text.split("read")[1].startswith(" 1.00 times"), (together, where.text)


@pytest.mark.parametrize("layers", [0, 1])
def test_last_layers_may_read_everything(page, layers):
    from selenium.webdriver.common.keys import Keys

    type_into(page, "full_layers", str(layers))
    box = ask_about_a_story(page)
    box.find_element("css selector", ".routing canvas").send_keys(Keys.HOME, *[Keys.ARROW_DOWN] * 5)
    where = box.find_element("css selector", ".routing .where").text
    assert "Layer 4" in where and ("full attention" in where) == (layers == 1)


def test_where_the_model_looked_is_told_in_light_and_dark(page):
    with contextlib.ExitStack() as stack:
        stack.callback(page.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        box = ask_about_a_story(page)
        canvas = box.find_element("css selector", ".routing canvas")
        pictures = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            wait_for(page, lambda: painted(page, canvas) > 3 and canvas.screenshot_as_png not in pictures)
            pictures.append(canvas.screenshot_as_png)


def test_nothing_is_shown_of_it_where_nobody_asks_or_nothing_is_chosen(page):
    from selenium.webdriver.support.ui import Select

    find(page, "routing").click()
    assert not ask_about_a_story(page).find_elements("class name", "routing")
    find(page, "routing").click()
    for phase in ("prefill", "decode"):
        Select(find(page, f"{phase}_mode")).select_by_value("full")
    ask(page, "And then?")
    wait_for(page, lambda: idle(page))
    box = boxes(page, "assistant")[-1]
    assert not box.find_elements("class name", "routing")
    assert "Full attention reads every block" in box.text


def test_a_new_conversation_forgets_the_old_one(page):
    type_into(page, "max_tokens", "3")
    ask(page, "Hello")
    wait_for(page, lambda: idle(page))
    find(page, "clear").click()
    assert not page.find_elements("class name", "message")
    ask(page, "Hello")
    wait_for(page, lambda: idle(page))
    assert len(boxes(page, "assistant")) == 1


def test_the_keyboard_reaches_everything(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    seen = set()
    find(page, "prompt").click()
    for _ in range(40):
        ActionChains(page).send_keys(Keys.TAB).perform()
        seen.add(page.switch_to.active_element.get_attribute("id"))
    assert {"file", "send", "clear", "prefill_mode", "decode_mode", "max_tokens", "temperature", "system"} <= seen


def test_it_asks_for_a_key_where_the_server_does(browser, start_server):
    from selenium.webdriver.common.keys import Keys

    good = "mk-alice-0123456789abcdef"
    server = start_server(environment={"MOBIUS_SECURITY_API_KEYS": good})
    host, port = server.http_address
    browser.get(f"http://{host}:{port}/")
    wait_for(browser, lambda: "asks for a key" in find(browser, "access_text").text)
    find(browser, "key").send_keys("mk-wrong-0123456789", Keys.TAB)
    wait_for(browser, lambda: "does not know" in find(browser, "access_text").text)
    type_into(browser, "key", good + Keys.TAB)
    wait_for(browser, lambda: "tiny" in find(browser, "model").text)
    assert find(browser, "access_text").text == ""
    type_into(browser, "max_tokens", "3")
    ask(browser, "Hello")
    wait_for(browser, lambda: idle(browser))
    assert "prompt tokens" in boxes(browser, "assistant")[-1].text
    # Kept for the tab, and nowhere in the page's address.
    browser.refresh()
    wait_for(browser, lambda: "tiny" in find(browser, "model").text)
    assert "mk-" not in browser.current_url
    browser.execute_script("sessionStorage.clear()")
    browser.get_log("browser")


def test_without_keys_it_does_not_ask(page):
    assert not find(page, "key").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page, scheme):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def brightness(expression):
        color = page.execute_script(f"return getComputedStyle(document.body).{expression}")
        red, green, blue = (float(part) for part in color[color.index("(") + 1:-1].split(",")[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    difference = brightness("backgroundColor") - brightness("color")
    with contextlib.ExitStack() as stack:
        stack.callback(page.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        assert difference > 150 if scheme == "light" else difference < -150
