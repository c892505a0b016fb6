"""Pages of other origins in a real browser, and the service's own page behind a prefix."""

from __future__ import annotations

import json
import threading
import urllib.request
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pictures import write_class_folders
from service import service_of
from trustvlm import TrustVLM
from uploads import png

pytestmark = pytest.mark.browser
# All names below `.example` are this machine in the browser of these tests.
OWN, OTHER = "pets.example", "evil.example"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    folder = tmp_path_factory.mktemp("origins")
    path = folder / "colours.trust"
    TrustVLM(vlm="offline", vision="offline").fit(write_class_folders(folder / "shots")).save(path)
    return path


@pytest.fixture(scope="module")
def port(model, tmp_path_factory):
    """The port of a service that everyone reaches, under a name of its own, without keys."""
    folder = tmp_path_factory.mktemp("service")
    options = ("--host", "0.0.0.0", "--no-auth", "--hosts", OWN, "--root-path", "/trust")
    database = folder / "feedback.sqlite"
    with service_of(model, *options, "--feedback", database, log=folder / "log") as (_, address):
        yield int(address.rpartition(":")[2])


@contextmanager
def serving(answer):
    """A server in this process; `answer` gets each request and says status, headers and body."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = answer(self, body)
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 (the names that the server calls)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def state(port):
    """Whatever a page could have changed."""
    return asked(port, "/v1/queue"), asked(port, "/v1/feedback.csv"), asked(port, "/v1/model")


def refused(port, kind):
    lines = asked(port, "/metrics").splitlines()
    start = f'trustvlm_errors_total{{kind="{kind}"}} '
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


# Every way in which a page can make a browser send something to another origin.
ATTACKS = """async ([target, content]) => {
    const image = new Blob([new Uint8Array(content)]);
    const form = new FormData();
    form.append("images", image, "a.png");
    const skip = JSON.stringify({ image: "0".repeat(64), action: "skip" });
    const blind = { mode: "no-cors", method: "POST" };
    const answers = await Promise.allSettled([
        fetch(`${target}/v1/predict?keep=true`, { ...blind, body: form }),
        fetch(`${target}/v1/predict?keep=true`, {
            ...blind, body: form, referrerPolicy: "no-referrer" }),
        fetch(`${target}/v1/feedback`, { ...blind, body: skip }),
        fetch(`${target}/v1/reload`, blind),
        fetch(`${target}/v1/feedback`, {
            method: "POST", body: skip, headers: { "Content-Type": "application/json" } }),
        fetch(`${target}/v1/feedback/1`, { method: "DELETE" }),
    ]);
    navigator.sendBeacon(`${target}/v1/feedback`, skip);
    const frame = document.createElement("iframe");
    frame.name = "inside";
    const sent = Object.assign(document.createElement("form"), {
        action: `${target}/v1/reload`, method: "post", target: "inside", enctype: "text/plain" });
    document.body.append(frame, sent);
    const loaded = new Promise((done) => frame.addEventListener("load", done));
    sent.submit();
    await loaded;
    const sandboxed = document.createElement("iframe");
    sandboxed.sandbox = "allow-scripts";
    sandboxed.srcdoc = `<script>
        fetch("${target}/v1/feedback", { mode: "no-cors", method: "POST", body: '${skip}' })
            .finally(() => parent.postMessage("done", "*"))
    </script>`;
    const tried = new Promise((done) => addEventListener("message", done));
    document.body.append(sandboxed);
    await tried;
    const read = ({ status, value }) => status === "fulfilled" && value.type !== "opaque";
    return answers.filter(read).length;
}"""


@pytest.mark.parametrize("name", [OWN, "127.0.0.1", "localhost"])
def test_a_page_of_another_origin_changes_nothing(open_page, port, name):
    before = state(port), refused(port, "other_site")
    argument = [f"http://{name}:{port}", list(png("red", 1))]
    with serving(lambda *_: (200, [("Content-Type", "text/html")], b"<body>evil</body>")) as evil:
        opened = open_page(f"http://{OTHER}:{evil}/")
        assert opened.page.evaluate(ATTACKS, argument) == 0
        # Its own port makes a page of the same name another origin, too.
        opened = open_page(f"http://{OWN}:{evil}/")
        assert opened.page.evaluate(ATTACKS, argument) == 0
    assert state(port) == before[0]
    # They came as far as the service, all but those that the browser asks about beforehand.
    assert refused(port, "other_site") - before[1] >= 2 * 6


def test_a_page_that_takes_the_service_for_its_own_gets_nothing(open_page, port):
    # DNS rebinding: the browser takes whatever stands at this address for one site.
    before = state(port)
    page = open_page(f"http://{OTHER}:{port}/").page
    assert '"kind":"host"' in page.inner_text("body")
    statuses = page.evaluate(
        """async (skip) => {
            const json = { "Content-Type": "application/json" };
            const answers = await Promise.all([
                fetch("/v1/queue"),
                fetch("/v1/feedback.csv"),
                fetch("/metrics"),
                fetch("/"),
                fetch("/v1/feedback", { method: "POST", headers: json, body: skip }),
                fetch("/v1/reload", { method: "POST" }),
                fetch("/v1/feedback/1", { method: "DELETE" }),
            ]);
            return answers.map((answer) => answer.status);
        }""",
        json.dumps({"image": "0" * 64, "action": "skip"}),
    )
    assert set(statuses) <= {421, 403}
    assert state(port) == before


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png("red", 7))
    return file


def use(opened, photo):
    """Check an image, answer, take the answer back."""
    page = opened.page
    page.get_by_label("choose files").set_input_files([photo])
    page.get_by_text("1 image checked.").wait_for()
    page.get_by_label("Verdicts").get_by_role("img").first.wait_for()
    page.get_by_role("link", name="Review").click()
    page.locator("#item").wait_for()
    page.keyboard.press("a")
    page.get_by_text("Accepted: ").wait_for()
    page.keyboard.press("u")
    page.get_by_text("Undone.").wait_for()
    page.get_by_role("link", name="Threshold").click()
    page.get_by_text("This model is not calibrated").wait_for()
    # Without TLS a name has no process of its own, and Chromium says so.
    assert [one for one in opened.complaints if "Cross-Origin-Opener-Policy" not in one] == []


@pytest.mark.parametrize("name", [OWN, "127.0.0.1", "localhost"])
def test_the_service_s_own_page_works_under_every_name_of_it(open_page, port, photo, name):
    use(open_page(f"http://{name}:{port}/"), photo)


@pytest.mark.parametrize("stripped", [True, False])
def test_the_page_works_behind_a_prefix(open_page, port, photo, stripped):
    def forward(request, body):
        if not request.path.startswith("/trust"):
            return 404, [], b""
        path = request.path.removeprefix("/trust") if stripped else request.path
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k.lower() != "connection"}
        connection.request(request.command, path or "/trust", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    with serving(forward) as proxy:
        address = f"http://{OWN}:{proxy}/trust"
        # Without the slash, as people type it.
        opened = open_page(address)
        opened.page.wait_for_url(f"{address}/**")
        use(opened, photo)
        # The status of an update, asked for at an address relative to the page.
        opened.page.wait_for_function(
            "() => document.getElementById('command').textContent.startsWith('trustvlm update ')"
        )
        asked_for = {url.removeprefix("blob:") for url in opened.requests}
        assert all(url.startswith((f"http://{OWN}:{proxy}/trust", f"http://{OWN}:{proxy}/"))
                   for url in asked_for)  # fmt: skip
        assert all("/trust" in url for url in opened.requests if not url.startswith("blob:"))
