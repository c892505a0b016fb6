// A better model from the answers: one command, or one button with a comparison before the switch.

import { ask } from "./api.js";
import { byId, element } from "./dom.js";
import * as outbox from "./outbox.js";

const POLL = 500;
let timer = null;
let switched = () => {};

// Null where it is not defined.
const share = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
const points = (value) =>
  value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;

function row(tag, ...cells) {
  return element(
    "tr",
    {},
    ...cells.map((text, i) =>
      element(i === 0 || tag === "th" ? "th" : "td", {
        textContent: text,
        ...(tag === "th" ? { scope: "col" } : i === 0 ? { scope: "row" } : {}),
      })
    )
  );
}

function comparison(result) {
  const { comparisons, calibration_statement: calibration, notes } = result;
  const rows = comparisons.map((one) =>
    row(
      "td",
      `${one.of} (${one.n})`,
      share(one.accuracy_before),
      share(one.accuracy_after),
      `${points(one.difference)} (${points(one.low)} to ${points(one.high)})`,
      one.verdict
    )
  );
  const examples = `${result.shots_before} examples before, ${result.shots_after} now`;
  const changed = result.relabelled ? `, ${result.relabelled} of them with another label` : "";
  return [
    rows.length
      ? element(
          "div",
          { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Comparison" },
          element(
            "table",
            {},
            element("caption", { textContent: "Labels that are right" }),
            element(
              "thead",
              {},
              row("th", "on", "old model", "new model", "difference, points (95 % interval)", "in all")
            ),
            element("tbody", {}, ...rows)
          )
        )
      : null,
    element("p", { textContent: `${examples}${changed}.` }),
    calibration ? element("p", { textContent: calibration }) : null,
    ...(notes ?? []).map((note) => element("p", { className: "hint", textContent: note })),
  ].filter(Boolean);
}

const WORDS = {
  none: () => "",
  running: ({ done, total, seconds }) =>
    (total ? `${done} of ${total}` : "The answers are read") + ` · ${Math.round(seconds)} s`,
  ready: () => "The new model is ready, and not in use yet.",
  worse: () => "The new model is ready, and worse than the old one.",
  failed: ({ message }) => `There is no new model: ${message}`,
  cancelled: () => "Cancelled. Nothing has changed.",
  switched: ({ kept }) =>
    `The new model is in use.${kept ? ` The old one is kept as ${kept}.` : ""}`,
};

function show(status) {
  const { state, result } = status;
  const [running, waits] = [state === "running", state === "ready" || state === "worse"];
  byId("command").textContent = status.command;
  byId("update-words").textContent = WORDS[state](status);
  byId("update-words").classList.toggle("failed", state === "failed" || state === "worse");
  byId("update-bar").hidden = !running;
  if (status.total) {
    byId("update-bar").max = status.total;
    byId("update-bar").value = status.done;
  } else byId("update-bar").removeAttribute("value");
  byId("comparison").replaceChildren(...(result && !running ? comparison(result) : []));
  byId("update-start").hidden = running || waits;
  byId("update-cancel").hidden = !running;
  byId("update-use").hidden = !waits;
  byId("update-use").textContent = state === "worse" ? "Use it all the same" : "Use the new model";
  byId("update-use").classList.toggle("quiet", state === "worse");
  byId("update-use").dataset.worse = String(state === "worse");
  byId("update-keep").hidden = !waits;
  byId("update-keep").classList.toggle("quiet", state !== "worse");
  clearTimeout(timer);
  if (running) timer = setTimeout(refresh, POLL);
}

async function request(method = "GET", path = "v1/update", query = {}) {
  try {
    show(await ask(path, { method, query }));
    return true;
  } catch (error) {
    refuse(error.message);
    return false;
  }
}

function refuse(message) {
  byId("update-words").textContent = message;
  byId("update-words").classList.add("failed");
}

export async function refresh() {
  const well = await request();
  // Progress goes on being asked for while the service does not answer.
  if (!well && !byId("update-bar").hidden) timer = setTimeout(refresh, 4 * POLL);
}

export function setUp(whenSwitched) {
  switched = whenSwitched;
  byId("update-start").addEventListener("click", async () => {
    // All that was said counts, also what is still on its way.
    await outbox.flush();
    if (outbox.isEmpty()) request("POST");
    else refuse("Some answers are not stored yet; see above.");
  });
  byId("update-cancel").addEventListener("click", () => request("DELETE"));
  byId("update-keep").addEventListener("click", () => request("DELETE"));
  byId("update-use").addEventListener("click", async () => {
    const query = byId("update-use").dataset.worse === "true" ? { even_if_worse: true } : {};
    if (await request("POST", "v1/update/switch", query)) switched();
  });
}
