// Answers on their way to the service. They are kept in this tab until it has stored them, and sent
// again while it cannot be reached; by its key each is stored once, however often it is sent.

import { chosenModel, randomName, sendAnswers, undoAnswer } from "./api.js";

const STORAGE = `trustvlm-outbox ${document.baseURI.split("#")[0]}`;
const TOGETHER = 50;
const LONGEST_WAIT = 30;

// Each is an answer, or takes one back; in the order in which they were given.
let steps = JSON.parse(sessionStorage.getItem(STORAGE) ?? "[]");
const numbers = new Map(); // of stored answers, by key
const heard = { changed: [], stored: [], undone: [], refused: [] };
let sending = null;
let failures = 0;
let requests = 0;
let underWay = false;
let timer = null;
export let trouble = null; // { message, status, until } while the service does not take them

export const on = (event, work) => heard[event].push(work);
const tell = (event, ...what) => heard[event].forEach((work) => work(...what));

export const pending = () => steps.filter((step) => !step.undo).length;
export const pendingImages = () => steps.filter((step) => !step.undo).map((step) => step.image);
// By how many images fewer will wait once all is sent.
export const balance = () => 2 * pending() - steps.length;
export const isEmpty = () => steps.length === 0;
// The same before and after something: meanwhile nothing was sent of which it is not known whether
// it has arrived.
export const mark = () => (underWay ? NaN : requests);

function save() {
  try {
    if (steps.length) sessionStorage.setItem(STORAGE, JSON.stringify(steps));
    else sessionStorage.removeItem(STORAGE);
  } catch {
    // No room: they stay in memory, and leaving the page asks first.
  }
  tell("changed");
}

// Take answers `{image, action, label}`; returns their keys, by which they are taken back.
export function add(answers) {
  const made = answers.map((answer) => ({ ...answer, key: randomName(), model: chosenModel() }));
  steps.push(...made);
  save();
  flush();
  return made.map((step) => step.key);
}

export function takeBack(keys) {
  for (const key of keys) {
    const unsent = steps.find((step) => step.key === key && !step.undo && !step.tried);
    if (unsent) steps = steps.filter((step) => step !== unsent);
    else steps.push({ undo: true, key, number: numbers.get(key) });
  }
  save();
  flush();
}

async function sendNext() {
  requests += 1;
  underWay = true;
  try {
    await sendFirst();
  } finally {
    underWay = false;
  }
}

async function sendFirst() {
  const [first] = steps;
  if (first.undo) {
    // Undone already, or never stored: both are as wished.
    await undoAnswer(first.number).catch((error) => {
      if (error.status !== 404) throw error;
    });
    steps.shift();
    tell("undone");
    return;
  }
  const end = steps.findIndex((step) => step.undo || step.model !== first.model);
  const batch = steps.slice(0, Math.min(TOGETHER, end < 0 ? steps.length : end));
  for (const step of batch) step.tried = true;
  save();
  const { open, answers } = await sendAnswers(
    batch.map(({ key, image, action, label }) => ({
      key, image, action, label: label ?? null, if_unanswered: true,
    })),
    first.model
  );
  steps = steps.slice(batch.length);
  batch.forEach((step, i) => {
    const { id, error } = answers[i];
    if (id) {
      numbers.set(step.key, id);
      for (const later of steps) if (later.key === step.key) later.number = id;
    } else {
      steps = steps.filter((later) => later.key !== step.key);
      tell("refused", step, error.message);
    }
  });
  tell("stored", open);
}

export function flush() {
  sending ??= sendAll().finally(() => {
    sending = null;
    tell("changed");
  });
  return sending;
}

async function sendAll() {
  clearTimeout(timer);
  try {
    while (steps.length) {
      await sendNext();
      [failures, trouble] = [0, null];
      save();
    }
    trouble = null;
  } catch (error) {
    failures += 1;
    const wait = Math.min(2 ** (failures - 1), LONGEST_WAIT);
    trouble = { message: error.message, status: error.status ?? 0, until: Date.now() + 1000 * wait };
    timer = setTimeout(flush, 1000 * wait);
  }
}

window.addEventListener("online", flush);
window.addEventListener("beforeunload", (event) => {
  if (pending()) event.preventDefault();
});
