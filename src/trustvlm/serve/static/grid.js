// Many images of one predicted label: those that are right stay selected, and all go out as one.

import { byId, counted, element } from "./dom.js";
import { picture } from "./verdict.js";

export const SIZE = () => (window.innerWidth < 640 ? 12 : 24);
let label = null;
let shown = []; // of { item, tile }
let spare = []; // what comes next, with its pictures at hand

export const items = () => [...shown, ...spare].map(({ item }) => item);
const isRight = ({ tile }) => tile.getAttribute("aria-pressed") === "true";

function tileOf(item, right = true) {
  const { verdict } = item;
  const tile = element(
    "button",
    { type: "button", className: "tile", ariaPressed: String(right), ariaLabel: `${verdict.path} is ${verdict.label}` },
    picture(`v1/images/${item.image}`, 256, ""),
    element("span", { className: "mark", ariaHidden: "true" })
  );
  tile.addEventListener("click", () => toggle(tile));
  return { item, tile };
}

function toggle(tile) {
  tile.setAttribute("aria-pressed", String(tile.getAttribute("aria-pressed") !== "true"));
  count();
}

function count() {
  const right = shown.filter(isRight).length;
  const wrong = shown.length - right;
  byId("submit-words").textContent =
    `Accept ${right}` + (wrong ? `, correct ${wrong} one by one` : "");
  byId("submit-grid").disabled = shown.length === 0;
  byId("select-all").textContent = right === shown.length ? "Select none" : "Select all";
  byId("grid-title").textContent = shown.length
    ? `${counted(shown.length, "image")} of “${label}”: deselect what is wrong`
    : "";
}

function lay(entries) {
  shown = entries;
  byId("tiles").replaceChildren(...shown.map(({ tile }) => tile));
  count();
}

export function clear() {
  [label, spare] = [null, []];
  lay([]);
}

// Take over further images; those of another label replace what is there.
export function fill(name, images) {
  if (name !== label) clear();
  label = name;
  const present = new Set(items().map((item) => item.image));
  spare.push(
    ...images.filter((item) => !present.has(item.image)).map((item) => tileOf(item))
  );
  if (!shown.length) next();
}

function next() {
  const entries = spare.splice(0, SIZE());
  lay(entries);
}

export function putBack(right, wrong) {
  spare.unshift(...shown);
  lay([...wrong.map((item) => tileOf(item, false)), ...right.map((item) => tileOf(item))]);
}

export function remove(lost) {
  spare = spare.filter(({ item }) => !lost(item));
  lay(shown.filter(({ item }) => !lost(item)));
}

// What was said of the images that were shown; the next ones take their place.
export function take() {
  const [right, wrong] = [shown.filter(isRight), shown.filter((one) => !isRight(one))];
  next();
  return { right: right.map(({ item }) => item), wrong: wrong.map(({ item }) => item) };
}

export function selectAll() {
  const pressed = String(!shown.every(isRight));
  for (const { tile } of shown) tile.setAttribute("aria-pressed", pressed);
  count();
}

export function offer(groups, chosen) {
  byId("group").replaceChildren(
    ...groups.map(({ label: name, open }) =>
      element("option", { value: name, textContent: `${name} (${open})`, selected: name === chosen })
    )
  );
}

// Arrows move, space deselects (as a button does), Enter sends all.
export function onKey(event) {
  const tiles = shown.map(({ tile }) => tile);
  const at = tiles.indexOf(document.activeElement);
  if (event.key === "Enter" && !event.target.matches("a, summary, button:not(.tile)")) {
    event.preventDefault();
    byId("submit-grid").click();
    return true;
  }
  const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const step = steps[event.key];
  if (!step || !tiles.length) return false;
  event.preventDefault();
  tiles[at < 0 ? 0 : Math.min(tiles.length - 1, Math.max(0, at + step))].focus();
  return true;
}
