// Which view is shown, and for which model.

import { ask, chosenModel, keepKey, useModel } from "./api.js";
import * as check from "./check.js";
import { byId, element, say } from "./dom.js";
import * as outbox from "./outbox.js";
import * as review from "./review.js";
import * as threshold from "./threshold.js";
import * as update from "./update.js";

const VIEWS = ["check", "review", "threshold"];

function show() {
  const wanted = location.hash.slice(1);
  const view = VIEWS.includes(wanted) ? wanted : "check";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The address names a view, not a place on the page.
  window.scrollTo(0, 0);
  review.refresh();
  if (view === "review") update.refresh();
}

async function useChosen(name) {
  review.leave();
  review.useClasses([]);
  useModel(name);
  const facts = await ask("v1/model");
  review.useClasses(facts.classes);
  check.useModel(facts);
  byId("about").textContent =
    `${facts.name}: ${facts.classes.length} classes, score ${facts.score}, ` +
    (facts.calibrated ? "calibrated." : "not calibrated: no error rate is guaranteed.");
  const notes = new Set(Object.values(facts.models).map((one) => one.note));
  byId("notes").replaceChildren(
    ...[...notes].filter(Boolean).map((note) => element("li", { textContent: note }))
  );
  await Promise.all([review.refresh(), threshold.refresh(), update.refresh()]);
}

async function start() {
  try {
    const names = await ask("v1/models");
    byId("key-form").hidden = true;
    byId("model").replaceChildren(...names.map((name) => element("option", { textContent: name })));
    byId("model-choice").hidden = names.length < 2;
    await useChosen(names[0]);
  } catch (error) {
    say(error.message, true);
  }
}

check.setUp(() => review.refresh());
review.setUp();
update.setUp(() => useChosen(chosenModel()).catch((error) => say(error.message, true)));
threshold.setUp();
window.addEventListener("hashchange", () => {
  say("");
  show();
});
byId("model").addEventListener("change", () => {
  useChosen(byId("model").value).catch((error) => say(error.message, true));
});
byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepKey(byId("key").value);
  byId("key").value = "";
  say("");
  await start();
  outbox.flush();
});
show();
await start();
outbox.flush(); // of this tab before it was loaded again
