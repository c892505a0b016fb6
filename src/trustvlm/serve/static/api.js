// Requests to the service that this page came from, and to no other. Their addresses are relative to
// the page, so that it works behind any prefix.

import { byId } from "./dom.js";

const KEY = "trustvlm-key";
const pictures = new Map();
const MOST_PICTURES = 400;
let model = "";

export const useModel = (name) => {
  model = name;
  pictures.forEach((url) => url.then((known) => known && URL.revokeObjectURL(known)));
  pictures.clear();
};
export const chosenModel = () => model;

export class Refused extends Error {
  constructor(message, status = 0, kind = "") {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

function address(path, query = {}) {
  const parts = new URLSearchParams(query);
  if (model && !parts.has("model")) parts.set("model", model);
  const text = parts.toString();
  return text ? `${path}?${text}` : path;
}

async function send(path, { query, ...options } = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  let answer;
  try {
    answer = await fetch(address(path, query), { ...options, headers });
  } catch {
    throw new Refused("The service cannot be reached.");
  }
  if (answer.status === 401) byId("key-form").hidden = false;
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    const message = body?.error?.message ?? `The service answered ${answer.status}.`;
    throw new Refused(message, answer.status, body?.error?.kind);
  }
  return answer;
}

// Random bytes are there without TLS, a UUID is not.
export const randomName = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) =>
    byte.toString(16).padStart(2, "0")
  ).join("");

// Whose the leased images are: whoever looks at this page, until it is left.
const reviewer = randomName();

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const ask = async (path, options) => (await send(path, options)).json();
export const fetchText = async (path) => (await send(path)).text();

const post = (path, body) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

export const sendAnswers = (answers, name) =>
  post("v1/feedback/batch", { model: name || null, answers });
export const undoAnswer = (id) => ask(`v1/feedback/${id}`, { method: "DELETE" });

export const nextImages = (limit, label = null) =>
  ask("v1/queue", { query: { limit, reviewer, ...(label === null ? {} : { label }) } });
export const nOpen = async () => (await ask("v1/queue", { query: { limit: 1 } })).open;
export const openLabels = () => ask("v1/queue/labels");
export const renewLeases = (images) => post("v1/leases", { reviewer, images, model: model || null });
// `keepalive` lets it go out while the page closes; unlike a beacon it carries the API key.
export const releaseLeases = () =>
  send("v1/leases", { method: "DELETE", query: { reviewer }, keepalive: true }).catch(() => null);

export function predict(files, label = "") {
  const form = new FormData();
  for (const file of files) {
    form.append("images", file);
    if (label) form.append("label", label);
  }
  return ask("v1/predict", { method: "POST", body: form, query: { keep: true } });
}

// The address of a picture within this page, or null if there is none at hand. A picture may need
// the API key, which only a request can carry.
export function pictureUrl(path, side) {
  const name = `${path} ${side}`;
  if (!pictures.has(name)) {
    if (pictures.size >= MOST_PICTURES) {
      const [oldest, url] = pictures.entries().next().value;
      url.then((known) => known && URL.revokeObjectURL(known));
      pictures.delete(oldest);
    }
    const url = send(path, { query: { side } })
      .then((answer) => answer.blob())
      .then((blob) => URL.createObjectURL(blob))
      .catch((error) => {
        // Only what does not exist is not asked for again.
        if (error.status !== 404) pictures.delete(name);
        return null;
      });
    pictures.set(name, url);
  }
  return pictures.get(name);
}
