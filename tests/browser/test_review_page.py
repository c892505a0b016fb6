"""The review page as a person meets it: real clicks and keys, against the real service."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import service_of
from trustvlm import TrustVLM
from trustvlm.demo import write_pictures
from trustvlm.images import find_labelled

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    return write_pictures(tmp_path_factory.mktemp("review") / "pictures")


@pytest.fixture(scope="module")
def photos(pictures):
    """Ten photographs of different classes, and a file that is none."""
    refs = find_labelled(pictures.labels).refs
    broken = Path(pictures.photos) / "notes.png"
    broken.write_bytes(b"This is no picture.")
    return [str(ref.file) for ref in refs[:: max(1, len(refs) // 10)][:10]] + [str(broken)]


@pytest.fixture(scope="module")
def model(pictures, photos):
    path = Path(pictures.shots).parent / "demo.trust"
    made = TrustVLM(vlm="offline", vision="offline", classes=pictures.classes).fit(pictures.shots)
    labelled = find_labelled(pictures.labels).refs
    paths = [str(ref.file) for ref in labelled if str(ref.file) not in photos]
    labels = [str(ref.label) for ref in labelled if str(ref.file) not in photos]
    made.calibrate((paths, labels), risk=0.3, confidence_level=0.8).save(path)
    return path


@pytest.fixture
def service(model, tmp_path):
    """A service of its own for each test, with an empty queue."""
    database = tmp_path / "demo.feedback.sqlite"
    with service_of(model, "--feedback", database, log=tmp_path / "log") as (_, address):
        yield address


def upload(opened, photos):
    page = opened.page
    page.get_by_label("choose files").set_input_files(photos)
    page.get_by_text(f"{len(photos)} images checked.").wait_for()
    page.wait_for_load_state("networkidle")


def asked(address, path):
    with urllib.request.urlopen(f"{address}{path}", timeout=60) as answer:
        return answer.read().decode()


def queued(address):
    return json.loads(asked(address, "/v1/queue"))


def all_stored(opened):
    """Wait until the page has sent every answer: it goes on to the next image before that."""
    opened.page.wait_for_function(
        "() => !Object.keys(sessionStorage).some((name) => name.startsWith('trustvlm-outbox'))"
    )


def exported(address):
    return list(csv.DictReader(io.StringIO(asked(address, "/v1/feedback.csv"))))


def current(opened):
    return opened.page.locator("#item h3").inner_text()


def in_view(opened, view):
    opened.page.get_by_role("navigation").get_by_role("link", name=view).click()
    if view == "Review":  # its keys answer what is on the screen
        opened.page.locator("#item:visible, #review-none:visible, .tile:visible").first.wait_for()
    opened.page.wait_for_load_state("networkidle")


def check_page(opened):
    for check in ("paleText", "tooWide", "smallTargets"):
        assert opened.faults(check) == [], check
    named = {"button", "link", "image", "textbox", "combobox", "slider", "heading", "navigation"}
    for node in opened.accessible():
        assert node["role"] not in named or node["name"], node


def test_every_view_can_be_looked_at_and_used_by_everyone(
    open_page, service, photos, screenshots, width, theme
):
    opened = open_page(service, width=width, theme=theme)
    upload(opened, photos)
    for view in ("Check", "Review", "Threshold"):
        in_view(opened, view)
        opened.page.mouse.move(0, 0)
        check_page(opened)
        if view == "Review":
            opened.page.get_by_text("Or by hand").click()
            check_page(opened)
            opened.page.get_by_text("Or by hand").click()
            opened.page.get_by_role("button", name="Many alike").click()
            opened.page.locator(".tile").first.click()
            opened.page.wait_for_load_state("networkidle")
            check_page(opened)
            opened.page.screenshot(path=screenshots / f"grid-{width}-{theme}.png", full_page=True)
            opened.page.get_by_role("button", name="One", exact=True).click()
            opened.page.locator("#item").wait_for()
            opened.page.wait_for_load_state("networkidle")
        file = screenshots / f"{view.lower()}-{width}-{theme}.png"
        opened.page.screenshot(path=file, full_page=view != "Check")
        with Image.open(file) as picture:
            typical = np.median(np.asarray(picture.convert("L")))
        assert typical > 200 if theme == "light" else typical < 60
    assert opened.complaints == []
    assert {re.match(r"(blob:)?http://[^/]+", url)[0].removeprefix("blob:") for url in
            opened.requests} == {service}  # fmt: skip


def test_axe_finds_nothing_to_object_to(open_page, service, photos, width, theme):
    opened = open_page(service, width=width, theme=theme)
    opened.page.get_by_text("classes, score").wait_for()
    views = ("Check", "Review", "Threshold")
    for uploaded in (False, True):
        if uploaded:
            in_view(opened, "Check")
            upload(opened, photos)
        for view in views:
            in_view(opened, view)
            opened.page.mouse.move(0, 0)
            assert opened.violations() == [], (view, uploaded)
    in_view(opened, "Review")
    opened.page.get_by_text("Or by hand").click()
    opened.page.keyboard.press("a")
    opened.page.get_by_text("Accepted: ").wait_for()
    assert opened.violations() == []
    opened.page.keyboard.press("g")
    opened.page.locator(".tile").first.click()
    assert opened.violations() == []
    opened.page.keyboard.press("?")
    assert opened.violations() == []


def test_axe_would_find_what_is_wrong(open_page, service):
    opened = open_page(service)
    opened.page.get_by_text("classes, score").wait_for()
    opened.page.evaluate(
        """() => {
            const main = document.querySelector("main");
            main.append(new Image(9, 9));
            document.getElementById("check-title").style.color = "#ddd";
            for (const name of ["first", "second"]) {
                const small = document.createElement("button");
                small.ariaLabel = name;
                small.style.cssText = "width: 8px; height: 8px; min-height: 0; padding: 0";
                main.append(small);
            }
        }"""
    )
    violations = " ".join(opened.violations())
    assert "critical: Images must have alternative text" in violations
    for rule in ("image-alt", "color-contrast", "target-size"):
        assert f"({rule})" in violations


def test_images_get_verdicts_and_a_broken_one_says_why(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    cards = opened.page.get_by_label("Verdicts").get_by_role("listitem")
    assert cards.count() == len(photos)
    broken = cards.filter(has_text="notes.png")
    assert "error" in broken.inner_text()
    assert "not an image" in broken.inner_text() or "text" in broken.inner_text()
    first = cards.filter(has_text=Path(photos[0]).name).first
    assert "P(correct)" in first.inner_text()
    assert "nearest example" in first.inner_text()
    assert first.get_by_role("img").count() >= 2
    assert queued(service)["open"] == len(photos) - 1


def test_images_can_be_dropped(open_page, service, photos):
    opened = open_page(service)
    content = list(Path(photos[0]).read_bytes())
    opened.page.evaluate(
        """(content) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([new Uint8Array(content)], "dropped.jpg"));
            const [drop, options] = [document.getElementById("drop"), { bubbles: true }];
            drop.dispatchEvent(new DragEvent("dragover", { ...options, dataTransfer: dropped }));
            drop.dispatchEvent(new DragEvent("drop", { ...options, dataTransfer: dropped }));
        }""",
        content,
    )
    opened.page.get_by_text("1 image checked.").wait_for()
    assert "dropped.jpg" in opened.page.get_by_label("Verdicts").inner_text()


def test_the_queue_is_worked_by_keyboard_alone(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    page, total = opened.page, len(photos) - 1
    in_view(opened, "Review")
    order = [one["image"] for one in queued(service)["images"]]
    doubts = [one["verdict"]["p_correct"] for one in queued(service)["images"]]
    assert len(order) == total
    first = current(opened)
    page.get_by_role("img", name="The image").wait_for()
    assert page.locator("#item").get_by_role("img").count() == 3
    page.keyboard.press("a")
    page.get_by_text(f"Accepted: {first}. {total - 1} left.").wait_for()
    page.keyboard.press("s")
    page.get_by_text(f"Skipped. {total - 2} left.").wait_for()
    page.keyboard.press("c")
    chosen = page.locator("#right option").last.inner_text()
    page.locator("#right").press("End")
    page.keyboard.press("Enter")
    page.get_by_text(f"{total - 3} left.").wait_for()
    page.keyboard.press("r")
    page.get_by_text(f"{total - 4} left.").wait_for()
    all_stored(opened)
    answers = exported(service)
    assert [row["image"] for row in answers] == order[:4]
    assert [row["action"] for row in answers][:2] == ["accept", "skip"]
    assert answers[2]["label"] == chosen
    assert answers[3]["action"] == "correct"
    for left in range(total - 3, total + 1):
        page.keyboard.press("u")
        page.get_by_text(f"Undone. {left} left.").wait_for()
    all_stored(opened)
    assert exported(service) == []
    assert current(opened) == first
    assert [one["image"] for one in queued(service)["images"]] == order
    assert len(doubts) == total
    assert opened.complaints == []


def answered(address, image, **said):
    """Answer an image as another program or person would."""
    body = json.dumps({"image": image, **said}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/feedback", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def held(address, *tokens):
    """The images of the queue that nobody holds."""
    query = "&".join(f"reviewer={token}" for token in tokens or ("probe",))
    images = json.loads(asked(address, f"/v1/queue?limit=100&{query}"))["images"]
    request = urllib.request.Request(f"{address}/v1/leases?{query}", method="DELETE")
    urllib.request.urlopen(request, timeout=60).close()
    return [one["image"] for one in images]


def test_two_people_never_see_the_same_image(open_page, service, photos):
    first, second = open_page(service), open_page(service)
    upload(first, photos)
    order = [one["image"] for one in queued(service)["images"]]
    assert held(service) == order
    for opened in (first, second):
        in_view(opened, "Review")
        opened.page.locator("#item").wait_for()
    # Five each: the image on the screen and the next few.
    assert held(service) == []
    for opened in (first, second):
        opened.page.keyboard.press("a")
        opened.page.get_by_text("Accepted: ").wait_for()
        all_stored(opened)
    assert {row["image"] for row in exported(service)} == {order[0], order[5]}
    # Whoever leaves gives the rest back, at once.
    first.page.goto("about:blank")
    deadline = time.monotonic() + 20
    while len(held(service)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held(service) == order[1:5]
    assert first.complaints + second.complaints == []


def test_leases_are_renewed_and_what_others_took_over_is_put_away(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    page = opened.page
    page.clock.install()
    in_view(opened, "Review")
    page.locator("#item").wait_for()
    first, second = (one["image"] for one in queued(service)["images"][:2])
    with page.expect_response("**/v1/leases*") as renewed:
        page.clock.fast_forward(31_000)
    assert renewed.value.json()["held"][:2] == [first, second]
    answered(service, first, action="skip")
    page.clock.fast_forward(31_000)
    page.get_by_text("Someone else has taken over the image that was here").wait_for()
    page.keyboard.press("a")
    page.get_by_text("Accepted: ").wait_for()
    all_stored(opened)
    assert [(row["image"], row["action"]) for row in exported(service)] == [
        (first, "skip"),
        (second, "accept"),
    ]


def test_nothing_can_be_answered_before_the_classes_are_there(open_page, service, photos):
    opened = open_page("about:blank", intercepted=True)
    page, held = opened.page, []
    page.route("**/v1/model?*", lambda route: held.append(route))
    page.goto(service)
    page.get_by_label("choose files").set_input_files(photos[:3])
    page.get_by_text("3 images checked.").wait_for()
    page.get_by_role("navigation").get_by_role("link", name="Review").click()
    page.get_by_text("3 left").wait_for()
    # What cannot be answered is not shown: a key would do nothing, and nobody would know why.
    assert not page.locator("#item, #review-none").filter(visible=True).count()
    page.keyboard.press("a")
    held[0].continue_()
    page.locator("#item").wait_for()
    page.keyboard.press("a")
    page.get_by_text("Accepted: ").wait_for()
    all_stored(opened)
    assert len(exported(service)) == 1
    assert opened.complaints == []


def test_the_pace_leaves_out_breaks(open_page, service):
    opened = open_page(service)
    rates = opened.page.evaluate(
        """async () => {
            const { Pace } = await import("/static/pace.js");
            let now = 0;
            const pace = new Pace(() => now);
            const rates = [pace.perMinute()];
            for (const seconds of [0, 2, 2, 2, 3600, 2]) {
                now += 1000 * seconds;
                pace.note(1);
                rates.push(pace.perMinute());
            }
            pace.note(-1);
            return [...rates, pace.answers];
        }"""
    )
    assert rates[:4] == [None] * 4
    assert rates[4] == 30
    assert rates[5] == pytest.approx(4 / 66 * 60)  # a break counts as a minute
    assert rates[6:] == [pytest.approx(5 / 68 * 60), 5]


def test_an_answer_that_comes_too_late_is_refused_and_said(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    in_view(opened, "Review")
    opened.page.locator("#item").wait_for()
    image = queued(service)["images"][0]["image"]
    answered(service, image, action="skip")
    opened.page.keyboard.press("a")
    opened.page.get_by_text(
        "answered this image meanwhile (skip). Yours was not stored."
    ).wait_for()
    assert {row["image"]: row["action"] for row in exported(service)} == {image: "skip"}


def test_number_keys_choose_a_candidate(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    page = opened.page
    in_view(opened, "Review")
    page.locator("#item").wait_for()
    first, second = (one["verdict"] for one in queued(service)["images"][:2])
    buttons = page.locator("#candidates button")
    assert buttons.count() == len(first["candidates"]) >= 4
    assert buttons.first.inner_text().replace("\n", "") == f"1Accept {first['label']}"
    page.keyboard.press("3")
    page.get_by_text(f"Corrected to {first['candidates'][2]}.").wait_for()
    page.keyboard.press("1")
    page.get_by_text(f"Accepted: {second['label']}.").wait_for()
    page.keyboard.press("9")  # there is no such candidate
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("The runner-up is right").wait_for()
    page.keyboard.press("s")  # nothing is answered behind the help
    page.keyboard.press("Escape")
    all_stored(opened)
    said = [(row["action"], row["label"]) for row in exported(service)]
    assert said == [("correct", first["candidates"][2]), ("accept", second["label"])]
    page.get_by_text("2 answered").wait_for()
    assert opened.complaints == []


def test_many_alike_are_answered_at_once(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    page = opened.page
    images = queued(service)["images"]
    labels = [one["verdict"]["label"] for one in images]
    label = max(sorted(set(labels)), key=labels.count)
    alike = [one["image"] for one in images if one["verdict"]["label"] == label]
    assert len(alike) >= 2
    in_view(opened, "Review")
    page.keyboard.press("g")
    page.locator(".tile").first.wait_for()
    assert page.locator("#group").input_value() == label
    assert page.locator(".tile").count() == len(alike)
    # By keys alone: the second one is wrong.
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.locator(".tile").nth(1).get_attribute("aria-pressed") == "false"
    page.keyboard.press("Enter")
    page.get_by_text("1 to correct, one by one.").wait_for()
    page.keyboard.press("2")
    page.get_by_text("Corrected to ").wait_for()
    page.locator(".tile").first.wait_for()  # of the next label
    all_stored(opened)
    right = [image for image in alike if image != alike[1]]
    rows = {row["image"]: (row["action"], row["label"]) for row in exported(service)}
    assert len(exported(service)) == len(alike)
    assert {image: rows[image] for image in right} == dict.fromkeys(right, ("accept", label))
    assert rows[alike[1]][0] == "correct"
    # Undone: first the one that was corrected, then all that were accepted together.
    page.keyboard.press("u")
    page.locator("#item").wait_for()
    page.keyboard.press("u")
    page.get_by_text(f"Undone. {len(images)} left.").wait_for()
    all_stored(opened)
    assert exported(service) == []
    assert opened.complaints == []


def until_offline(page):
    """Wait until the page feels it, which takes its time on a busy machine."""
    page.wait_for_function("() => fetch('healthz').then(() => false, () => true)")


def test_nothing_is_lost_while_the_service_is_away(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos)
    page, total = opened.page, len(photos) - 1
    in_view(opened, "Review")
    page.get_by_role("img", name="The image").wait_for()
    order = [one["image"] for one in queued(service)["images"]]
    page.context.set_offline(True)
    until_offline(page)
    page.keyboard.press("a")
    page.keyboard.press("s")
    page.get_by_text("2 answers are not stored yet: The service cannot be reached.").wait_for()
    assert exported(service) == []
    page.keyboard.press("s")
    page.keyboard.press("u")
    page.get_by_text(f"{total - 2} left").first.wait_for()
    page.context.set_offline(False)
    # Unless the page was quicker: it tries again by itself.
    page.locator("#send-now").dispatch_event("click")
    all_stored(opened)
    assert [(row["image"], row["action"]) for row in exported(service)] == [
        (order[0], "accept"),
        (order[1], "skip"),
    ]


def test_an_answer_whose_receipt_is_lost_is_stored_once(open_page, service, photos):
    opened = open_page(service, intercepted=True)
    upload(opened, photos)
    page = opened.page
    in_view(opened, "Review")
    page.locator("#item").wait_for()

    def lose(route):
        route.fetch()  # the service stores it, and the page does not hear of it
        route.abort()

    page.route("**/v1/feedback/batch*", lose, times=1)
    page.keyboard.press("a")
    page.get_by_role("alert").wait_for()
    (stored,) = exported(service)
    # Taken back while it is not known whether it was stored: it is sent again, and then undone.
    page.keyboard.press("u")
    all_stored(opened)
    assert exported(service) == []
    page.keyboard.press("s")
    page.get_by_text("Skipped.").wait_for()
    all_stored(opened)
    (row,) = exported(service)
    assert (row["image"], row["action"]) == (stored["image"], "skip")


def test_what_is_stored_and_not_yet_confirmed_is_counted_once(open_page, service, photos):
    opened = open_page(service, intercepted=True)
    upload(opened, photos)
    page, held, total = opened.page, [], len(photos) - 1
    in_view(opened, "Review")
    page.get_by_text(f"{total} left").first.wait_for()
    page.route("**/v1/feedback/batch*", lambda route: held.append((route, route.fetch())), times=1)
    with page.expect_response("**/v1/queue?limit=*") as after:
        page.keyboard.press("a")
        page.wait_for_timeout(1000)  # the answer is stored, its receipt is under way
        assert len(exported(service)) == 1
        page.keyboard.press("s")
    assert after.value.json()["open"] >= total - 1
    page.wait_for_timeout(500)
    assert f"2 answered · {total - 2} left" in page.locator("#pace").inner_text()
    route, answer = held[0]
    route.fulfill(response=answer)
    all_stored(opened)
    page.get_by_text(f"2 answered · {total - 2} left").wait_for()
    assert len(exported(service)) == 2


def test_answers_outlive_a_reload_of_the_page(open_page, service, photos):
    opened = open_page(service, intercepted=True)
    upload(opened, photos)
    page = opened.page
    in_view(opened, "Review")
    page.locator("#item").wait_for()
    page.route("**/v1/feedback/batch*", lambda route: route.abort())
    page.keyboard.press("a")
    page.get_by_role("alert").wait_for()
    page.unroute("**/v1/feedback/batch*")
    # The browser asks whether to leave, since there is something that was not sent.
    page.remove_listener("dialog", opened._refuse)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.locator("#item").wait_for()
    all_stored(opened)
    assert [row["action"] for row in exported(service)] == ["accept"]


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [(507, "storage_full", "no room. Make room; nothing was stored."), (503, "storage", "gone.")],
)
def test_what_the_service_cannot_store_is_said_and_sent_again(
    open_page, service, photos, status, kind, message
):
    opened = open_page(service, intercepted=True)
    upload(opened, photos[:3])
    page = opened.page
    in_view(opened, "Review")
    page.locator("#item").wait_for()
    body = json.dumps({"error": {"kind": kind, "message": message}})
    page.route(
        "**/v1/feedback/batch*",
        lambda route: route.fulfill(status=status, body=body, content_type="application/json"),
    )
    page.keyboard.press("a")
    page.get_by_text(f"1 answer is not stored yet: {message}").wait_for()
    assert opened.violations() == []
    page.unroute("**/v1/feedback/batch*")
    # Unless the page was quicker: it tries again by itself.
    page.locator("#send-now").dispatch_event("click")
    all_stored(opened)
    assert len(exported(service)) == 1


def test_nothing_moves_when_the_next_image_comes(open_page, service, photos, width):
    opened = open_page(service, width=width)
    upload(opened, photos)
    page = opened.page
    in_view(opened, "Review")
    page.get_by_role("img", name="The image").wait_for()
    page.wait_for_load_state("networkidle")
    page.evaluate(
        """() => {
            window.moved = 0;
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) window.moved += entry.value;
            }).observe({ type: "layout-shift", buffered: false });
        }"""
    )
    frames = []
    for left in range(len(photos) - 2, len(photos) - 6, -1):
        frames.append(page.locator("#item .picture.main").bounding_box())
        page.keyboard.press("a")
        page.get_by_text(f"{left} left.").wait_for()
    assert len({tuple(frame.values()) for frame in frames}) == 1
    assert page.evaluate("window.moved") < 0.1  # "good" by web.dev's measure


def test_and_by_mouse(open_page, service, photos):
    opened = open_page(service)
    upload(opened, photos[:4])
    page = opened.page
    in_view(opened, "Review")
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("3 left.").wait_for()
    page.get_by_label("Another").select_option(index=0)
    page.get_by_role("button", name="Correct", exact=True).click()
    page.get_by_text("2 left.").wait_for()
    page.get_by_role("button", name="Skip").click()
    page.get_by_text("1 left.").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone.").wait_for()
    all_stored(opened)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download answers").click()
    text = Path(download.value.path()).read_text()
    assert text == asked(service, "/v1/feedback.csv")
    assert len(text.splitlines()) == 3
    page.get_by_role("button", name="Skip").click()
    page.get_by_text("1 left.").wait_for()
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("Nothing waits.").wait_for()
    assert page.get_by_role("button", name="Accept").count() == 0
    assert opened.complaints == []


def test_the_slider_shows_what_would_be_accepted_at_what_risk(open_page, service, model):
    opened = open_page(f"{service}/#threshold")
    page = opened.page
    slider, words = page.get_by_role("slider"), page.locator("#curve-words")
    page.get_by_text("calibration images").first.wait_for()
    calibration = TrustVLM.load(model).calibration_
    confidence, right = calibration.result.confidence, calibration.correct

    def shown():
        numbers = re.search(
            r"confidence (\S+) and above.*\((\d+) of (\d+)\).*\((\d+)\)", words.inner_text()
        )
        return float(numbers[1]), int(numbers[2]), int(numbers[3]), int(numbers[4])

    slider.press("Home")
    assert shown()[1] >= 1
    for _ in range(5):
        slider.press("ArrowRight")
    _, accepted, n, wrong = shown()
    ordered = np.sort(confidence)[::-1]
    assert n == len(confidence)
    assert wrong == (~right)[confidence >= ordered[accepted - 1]].sum()
    slider.press("End")
    assert shown()[1:3] == (n, n)
    assert "nothing is guaranteed" in words.inner_text()
    page.get_by_role("button", name="certified point").click()
    threshold, accepted, *_ = shown()
    assert accepted == (confidence >= calibration.certificate.threshold).sum()
    # All digits: who types the threshold in again accepts the same images.
    assert threshold == calibration.certificate.threshold
    assert "the guarantee below holds" in words.inner_text()


def test_with_a_key_the_page_asks_for_it(open_page, model, photos, tmp_path):
    key = "a-key-of-some-length"
    database = tmp_path / "demo.feedback.sqlite"
    environment = {"TRUSTVLM_SERVE_KEYS": key}
    arguments = (model, "--feedback", database)
    with service_of(*arguments, log=tmp_path / "log", environment=environment) as (_, address):
        opened = open_page(address)
        opened.page.get_by_label("Key", exact=True).fill(key)
        opened.page.get_by_role("button", name="Go on").click()
        opened.page.get_by_text("classes, score").wait_for()
        upload(opened, photos[:2])
        first = opened.page.get_by_label("Verdicts").get_by_role("listitem").first
        first.get_by_role("img").first.wait_for()


def test_names_from_others_do_no_harm(open_page, service, photos, tmp_path):
    hostile = tmp_path / "<img src=x onerror=window.harm=1>.png"
    hostile.write_bytes(Path(photos[0]).read_bytes())
    opened = open_page(service)
    upload(opened, [str(hostile), photos[1]])
    in_view(opened, "Review")
    assert opened.page.evaluate("window.harm") is None
    assert opened.complaints == []
