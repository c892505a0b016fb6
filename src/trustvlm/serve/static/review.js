// The queue: one image at a time with a key for each candidate, or many alike at once.

import {
  fetchText, nOpen, nextImages, openLabels, pictureUrl, releaseLeases, renewLeases,
} from "./api.js";
import { byId, counted, element, key, say } from "./dom.js";
import * as grid from "./grid.js";
import * as outbox from "./outbox.js";
import { Pace } from "./pace.js";
import { shownVerdict } from "./verdict.js";

// The image on the screen and the next few: what one person holds, others are not shown.
const AHEAD = 5;
const MOST_KEYS = 9;
const SIDE = 768;
const waiting = [];
const history = []; // of { keys, items, grid }
const answered = new Set(outbox.pendingImages());
const pace = new Pace();
let classes = new Set();
let open = 0; // images that wait, as the service last said
let many = false; // whether the grid is shown
let group = null; // the predicted label of the grid
let renewal = null;
let reclaim = false; // whether images came back that are leased no more
let asking = null; // the request under way
let turn = 0; // counts the changes of what is asked for

const inView = () => !byId("review").hidden;
// Until the classes are there, nothing is shown: no label could be accepted or chosen.
const canAnswer = () => inView() && classes.size > 0;
// What is wrong in the grid is corrected one by one before it goes on.
const inGrid = () => many && waiting.length === 0;
// The predicted label first; not if it is a label from elsewhere that is no class of the model.
const candidates = ({ verdict }) =>
  (verdict.candidates?.length ? verdict.candidates : [verdict.label, verdict.runner_up])
    .filter((label) => classes.has(label))
    .slice(0, MOST_KEYS);

// What is shown.

function show() {
  byId("single").hidden = inGrid();
  byId("grid").hidden = !inGrid() || !grid.items().length;
  byId("mode-single").setAttribute("aria-pressed", String(!many));
  byId("mode-grid").setAttribute("aria-pressed", String(many));
  showEmpty(inGrid() ? !grid.items().length : !waiting.length);
  if (!inGrid()) showOne();
  showProgress();
}

function showOne() {
  const [current] = waiting;
  byId("item").hidden = !current;
  byId("actions").hidden = !current;
  preload();
  if (byId("item").dataset.image === (current?.image ?? "")) return;
  byId("item").dataset.image = current?.image ?? "";
  if (!current) {
    byId("item").replaceChildren();
    return;
  }
  byId("item").replaceChildren(
    shownVerdict(current.verdict, { side: SIDE, titleId: "item-title" })
  );
  const isOwn = (label) => label === current.verdict.label;
  byId("candidates").replaceChildren(
    ...candidates(current).map((label, i) => {
      const button = element(
        "button",
        { type: "button", className: isOwn(label) ? "" : "quiet", "data-label": label },
        key(String(i + 1)),
        isOwn(label) ? `Accept ${label}` : label
      );
      button.addEventListener("click", () => choose(i));
      return button;
    })
  );
  byId("right").value = current.verdict.runner_up || current.verdict.label;
}

function preload() {
  for (const next of waiting.slice(1, AHEAD)) {
    pictureUrl(`v1/images/${next.image}`, SIDE);
    for (const nearest of [next.verdict.label_example, next.verdict.runner_up_example]) {
      if (nearest) pictureUrl(`v1/examples/${nearest.shot}`, 192);
    }
  }
}

function showEmpty(empty) {
  byId("review-none").hidden = !empty || Boolean(asking) || !canAnswer();
  const others = left() > 0;
  byId("none-waits").hidden = others;
  byId("others-look").hidden = !others;
  byId("others-n").textContent = counted(left(), "image waits", "images wait");
}

const left = () => Math.max(0, open - outbox.balance());

function showProgress() {
  const [n, rest] = [pace.answers, left()];
  byId("open").textContent = `(${rest})`;
  byId("open").hidden = rest === 0;
  byId("progress").max = Math.max(1, n + rest);
  byId("progress").value = n;
  const parts = [`${n} answered`, `${rest} left`];
  const rate = pace.perMinute();
  if (rate) {
    parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a minute`);
    if (rest) parts.push(`about ${duration(rest / rate)} to go`);
  }
  byId("pace").textContent = parts.join(" · ");
  byId("undo").disabled = history.length === 0;
  showUnsent();
}

function duration(minutes) {
  if (minutes < 1) return "a minute";
  if (minutes < 90) return counted(Math.round(minutes), "minute");
  return counted(Math.round(minutes / 60), "hour");
}

function showUnsent() {
  const { trouble } = outbox;
  byId("unsent").hidden = !trouble || outbox.isEmpty();
  if (!trouble || outbox.isEmpty()) return;
  const n = counted(outbox.pending(), "answer is", "answers are");
  const wait = Math.max(0, Math.round((trouble.until - Date.now()) / 1000));
  byId("unsent-words").textContent =
    `${n} not stored yet: ${trouble.message} ` +
    (trouble.status === 401
      ? "Sent once you have entered the key."
      : `Kept in this tab, and sent again ${wait ? `in ${wait} s` : "now"}.`);
}

// What waits.

// One request at a time. Who asks meanwhile is served by it, or by one more if that left nothing.
function refill() {
  if (asking?.turn === turn) {
    asking.again = true;
    return asking.done;
  }
  const mine = { turn, again: false };
  asking = mine;
  mine.done = fill(() => mine.turn === turn).then(() => {
    if (asking !== mine) return;
    asking = null;
    if (mine.again && isOut()) refill();
    show();
  });
  return mine.done;
}

const isOut = () => canAnswer() && waiting.length + grid.items().length === 0 && left() > 0;

async function fill(isWanted) {
  try {
    const mark = outbox.mark();
    // What was stored meanwhile, unknown to this page, would count twice.
    const count = (n) => {
      if (outbox.mark() === mark) open = n;
    };
    if (!canAnswer()) {
      count(await nOpen());
      return;
    }
    if (many && !(await chooseGroup(isWanted))) return;
    // What was answered and not stored yet still waits for the service.
    const limit = (many ? 2 * grid.SIZE() : AHEAD) + outbox.pending();
    const answer = await nextImages(Math.min(limit, 100), many ? group : null);
    if (!isWanted()) return;
    count(answer.open);
    schedule(answer.lease_seconds);
    const present = new Set(waiting.map((one) => one.image));
    const fresh = answer.images.filter(({ image }) => !answered.has(image) && !present.has(image));
    if (many) grid.fill(group, fresh);
    else waiting.push(...fresh);
  } catch (error) {
    say(error.message, true);
  }
}

async function chooseGroup(isWanted) {
  const groups = (await openLabels()).filter(({ label }) => classes.has(label));
  if (!isWanted()) return false;
  // On to the next label when this one is finished.
  const finished = !groups.some((one) => one.label === group);
  if (finished && !grid.items().length) group = groups[0]?.label ?? null;
  grid.offer(groups, group);
  return !finished || group !== null;
}

function schedule(seconds) {
  clearInterval(renewal);
  renewal = setInterval(renew, (1000 * seconds) / 5);
}

// Say that this page is still looked at, and put away what others have answered or taken over.
async function renew() {
  const images = [...waiting, ...grid.items()].map((one) => one.image);
  if (!inView() || !images.length || !outbox.isEmpty()) return;
  let held;
  try {
    held = new Set((await renewLeases(images)).held);
  } catch {
    return; // the next answer says it, or the next renewal succeeds
  }
  const [current] = waiting;
  const lost = (one) => images.includes(one.image) && !held.has(one.image);
  if (![...waiting, ...grid.items()].some(lost)) return;
  const missed = current && lost(current);
  const kept = waiting.filter((one) => !lost(one));
  waiting.splice(0, waiting.length, ...kept);
  grid.remove(lost);
  if (missed) say("Someone else has taken over the image that was here, since this page was away.");
  await refill();
}

export function leave() {
  clearInterval(renewal);
  if (waiting.length || grid.items().length) releaseLeases();
  waiting.length = 0;
  grid.clear();
  turn += 1;
}

export async function refresh() {
  if (inView()) {
    if (many || waiting.length < AHEAD) await refill();
    else show();
  } else {
    leave();
    await refill();
  }
}

// What is said.

function give(items, answers, inGrid = false) {
  history.push({ keys: outbox.add(answers), items, inGrid });
  for (const item of items) answered.add(item.image);
  pace.note(items.length);
}

function answer(action, label = null) {
  const item = waiting.shift();
  if (!item) return;
  give([item], [{ image: item.image, action, label }]);
  const words = { accept: `Accepted: ${item.verdict.label}.`, skip: "Skipped." };
  say(`${words[action] ?? `Corrected to ${label}.`} ${left()} left.`);
  show();
  if (inGrid() || (!many && waiting.length < AHEAD)) refill();
}

function choose(i) {
  const [current] = waiting;
  const label = current && candidates(current)[i];
  if (!label) return;
  if (label === current.verdict.label) answer("accept");
  else answer("correct", label);
}

function accept() {
  const [current] = waiting;
  if (current && classes.has(current.verdict.label)) answer("accept");
}

function submitGrid() {
  const { right, wrong } = grid.take();
  if (!right.length && !wrong.length) return;
  if (right.length) give(right, right.map(({ image }) => ({ image, action: "accept" })), true);
  say(
    `${counted(right.length, "label")} accepted. ` +
      (wrong.length ? `${wrong.length} to correct, one by one.` : `${left()} left.`)
  );
  waiting.unshift(...wrong);
  show();
  refill();
}

function undo() {
  const last = history.pop();
  if (!last) return;
  outbox.takeBack(last.keys);
  for (const item of last.items) answered.delete(item.image);
  pace.note(-last.items.length);
  if (last.inGrid && many) grid.putBack(last.items, waiting.splice(0));
  else waiting.unshift(...last.items);
  reclaim = true;
  say(`Undone. ${left()} left.`);
  show();
}

function setMode(wanted) {
  if (many === wanted) return;
  many = wanted;
  leave();
  refill();
}

async function download() {
  try {
    const text = await fetchText("v1/feedback.csv");
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    element("a", { href: url, download: "feedback.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say("The answers were downloaded.");
  } catch (error) {
    say(error.message, true);
  }
}

export function useClasses(labels) {
  classes = new Set(labels);
  byId("right").replaceChildren(...labels.map((label) => element("option", { textContent: label })));
  history.length = 0;
  waiting.length = 0;
  group = null;
  grid.clear();
  answered.clear();
  delete byId("item").dataset.image;
  for (const image of outbox.pendingImages()) answered.add(image);
  show();
}

// Keys and buttons.

const onlyInGrid = (work) => () => inGrid() && work();
const onlySingly = (work) => () => !inGrid() && work();
const ACTS = {
  a: () => (inGrid() ? submitGrid() : accept()),
  r: onlySingly(() => {
    const other = waiting[0]?.verdict.runner_up;
    if (other) answer("correct", other);
  }),
  c: onlySingly(() => waiting[0] && byId("right").focus()),
  s: onlySingly(() => answer("skip")),
  u: undo,
  n: onlyInGrid(() => grid.selectAll()),
  g: () => setMode(!many),
  "?": () => byId("help").showModal(),
};
for (let i = 0; i < MOST_KEYS; i += 1) ACTS[i + 1] = onlySingly(() => choose(i));

function onKey(event) {
  if (!inView() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (byId("help").open) return;
  if (event.target === byId("right")) {
    if (event.key === "Enter") {
      event.preventDefault();
      byId("correct-form").requestSubmit();
    } else if (event.key === "Escape") event.target.blur();
    return; // letters choose a class here
  }
  if (event.target.matches("input, select, textarea") || event.repeat) return;
  if (inGrid() && grid.onKey(event)) return;
  const act = ACTS[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
  }
}

export function setUp() {
  byId("skip").addEventListener("click", ACTS.s);
  byId("undo").addEventListener("click", undo);
  byId("export").addEventListener("click", download);
  byId("submit-grid").addEventListener("click", submitGrid);
  byId("select-all").addEventListener("click", grid.selectAll);
  byId("mode-single").addEventListener("click", () => setMode(false));
  byId("mode-grid").addEventListener("click", () => setMode(true));
  byId("show-help").addEventListener("click", ACTS["?"]);
  byId("send-now").addEventListener("click", outbox.flush);
  byId("look-again").addEventListener("click", refill);
  byId("group").addEventListener("change", () => {
    group = byId("group").value;
    leave();
    refill();
  });
  byId("correct-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = byId("right").value;
    const [current] = waiting;
    if (current) answer(label === current.verdict.label ? "accept" : "correct", label);
    byId("right").blur();
  });
  document.addEventListener("keydown", onKey);
  outbox.on("changed", () => {
    showProgress();
    if (reclaim && outbox.isEmpty()) {
      reclaim = false;
      renew();
    }
  });
  outbox.on("stored", (n) => {
    open = n;
    // Until then the service took what was answered here for what comes next.
    if (isOut()) refill();
  });
  outbox.on("undone", () => {
    open += 1;
  });
  outbox.on("refused", (step, message) => say(message, true));
  setInterval(showUnsent, 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") renew();
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => event.persisted && refresh());
}
