// Images in, verdicts out.

import { predict } from "./api.js";
import { byId, element, say } from "./dom.js";
import { shownVerdict } from "./verdict.js";

const TOGETHER = 8;
const MOST_SHOWN = 200;

async function check(files, changed) {
  const results = byId("results");
  const label = byId("given").value.trim();
  let done = 0;
  for (let start = 0; start < files.length; start += TOGETHER) {
    const part = files.slice(start, start + TOGETHER);
    say(`Checking ${done + 1} to ${done + part.length} of ${files.length} images.`);
    try {
      const { verdicts } = await predict(part, label);
      for (const verdict of verdicts) {
        results.prepend(element("li", { className: "card" }, shownVerdict(verdict)));
      }
      while (results.children.length > MOST_SHOWN) results.lastChild.remove();
    } catch (error) {
      say(`${error.message} ${files.length - done} images were not checked.`, true);
      return;
    }
    done += part.length;
    changed();
  }
  say(`${done} ${done === 1 ? "image" : "images"} checked.`);
}

// A model without labels of its own judges those of others: each image then needs one.
export function useModel({ classes, needs_labels: needed }) {
  byId("given").required = needed;
  byId("given-hint").textContent = needed
    ? "Needed: this model judges labels, and gives none."
    : "Empty: the model gives the label.";
  byId("given-classes").replaceChildren(
    ...classes.map((name) => element("option", { value: name }))
  );
}

export function setUp(changed) {
  const [drop, input] = [byId("drop"), byId("files")];
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) check(files, changed);
  });
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    drop.addEventListener(name, () => drop.classList.remove("over"));
  }
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length) check(files, changed);
  });
  // A picture that misses the target must not replace the page.
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault());
  }
}
