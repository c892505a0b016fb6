// The queue, worked through with five keys.

import { answerImage, ask, fetchText, pictureUrl, reviewer, undoAnswer } from "./api.js";
import { byId, element, say } from "./dom.js";
import { shownVerdict } from "./verdict.js";

// Few, because what one person is handed others see last.
const AHEAD = 6;
let waiting = [];
let open = 0;
let busy = false;
const given = [];

function show() {
  const item = byId("item");
  const current = waiting[0];
  byId("open").textContent = `(${open})`;
  byId("open").hidden = open === 0;
  byId("review-none").hidden = Boolean(current);
  item.hidden = !current;
  for (const id of ["accept", "skip", "correct", "right"]) byId(id).disabled = !current;
  byId("runner-up").disabled = !current?.verdict.runner_up;
  byId("undo").disabled = given.length === 0;
  if (!current) {
    item.replaceChildren();
    return;
  }
  item.replaceChildren(shownVerdict(current.verdict, { side: 768, titleId: "item-title" }));
  byId("right").value = current.verdict.runner_up || current.verdict.label;
  const next = waiting[1];
  if (next) pictureUrl(`v1/images/${next.image}`, 768);
}

export async function refresh(first = null) {
  try {
    const query = { limit: AHEAD };
    // Who does not look at the queue takes nothing from it.
    if (!byId("review").hidden) query.reviewer = reviewer();
    const answer = await ask("v1/queue", { query });
    [waiting, open] = [answer.images, answer.open];
    const at = waiting.findIndex((one) => one.image === first);
    if (at > 0) waiting.unshift(...waiting.splice(at, 1));
    show();
  } catch (error) {
    say(error.message, true);
  }
}

async function once(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
  }
}

const answer = (action, label = null) =>
  once(async () => {
    const current = waiting[0];
    if (!current) return;
    const { id, open: left, earlier } = await answerImage(current.image, action, label);
    given.push({ id, image: current.image });
    waiting.shift();
    open = left;
    const told = { accept: `Accepted: ${current.verdict.label}.`, skip: "Skipped." };
    if (waiting.length < AHEAD / 2 && waiting.length < left) await refresh();
    else show();
    // Said last: until then keys are not heard.
    const before = earlier ? ` Someone said ${earlier.label || "skip"} before; now yours counts.` : "";
    say(`${told[action] ?? `Corrected to ${label}.`} ${left} left.${before}`);
  });

const undo = () =>
  once(async () => {
    const last = given.at(-1);
    if (!last) return;
    await undoAnswer(last.id);
    given.pop();
    await refresh(last.image);
    say(`Undone. ${open} left.`);
  });

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

export function useClasses(name, classes) {
  byId("right").replaceChildren(...classes.map((label) => element("option", { textContent: label })));
  given.length = 0;
  byId("commands").textContent =
    `trustvlm corrections ${name}.feedback.sqlite -o corrected/ --shots shots/\n` +
    `trustvlm fit corrected/labels.csv -o ${name}.trust --overwrite\n` +
    `curl -X POST ${new URL("v1/reload", document.baseURI)}?model=${encodeURIComponent(name)}`;
}

export function setUp() {
  const acts = {
    a: () => answer("accept"),
    r: () => waiting[0]?.verdict.runner_up && answer("correct", waiting[0].verdict.runner_up),
    c: () => byId("right").focus(),
    s: () => answer("skip"),
    u: undo,
  };
  byId("accept").addEventListener("click", acts.a);
  byId("runner-up").addEventListener("click", acts.r);
  byId("skip").addEventListener("click", acts.s);
  byId("undo").addEventListener("click", acts.u);
  byId("export").addEventListener("click", download);
  byId("correct-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = byId("right").value;
    const current = waiting[0];
    if (current) answer(label === current.verdict.label ? "accept" : "correct", label);
    byId("right").blur();
  });
  document.addEventListener("keydown", (event) => {
    if (byId("review").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === byId("right")) {
      if (event.key === "Enter") {
        event.preventDefault();
        byId("correct-form").requestSubmit();
      } else if (event.key === "Escape") event.target.blur();
      return; // letters choose a class here
    }
    if (event.target.matches("input, select, textarea") || event.repeat) return;
    const act = acts[event.key.toLowerCase()];
    if (act) {
      event.preventDefault();
      act();
    }
  });
}
