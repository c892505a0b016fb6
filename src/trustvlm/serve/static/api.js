// Requests to the service that this page came from, and to no other. Their addresses are relative to
// the page, so that it works behind any prefix.

import { byId } from "./dom.js";

const KEY = "trustvlm-key";
const REVIEWER = "trustvlm-reviewer";
const pictures = new Map();
const MOST_PICTURES = 300;
let model = "";

export const useModel = (name) => {
  model = name;
  pictures.forEach((url) => url.then((known) => known && URL.revokeObjectURL(known)));
  pictures.clear();
};

export class Refused extends Error {}

function address(path, query = {}) {
  const parts = new URLSearchParams(query);
  if (model) parts.set("model", model);
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
    throw new Refused(body?.error?.message ?? `The service answered ${answer.status}.`);
  }
  return answer;
}

// Whose queue this is, as long as the tab is open. Random bytes are there without TLS, a UUID is not.
export function reviewer() {
  let token = sessionStorage.getItem(REVIEWER);
  if (!token) {
    token = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) =>
      byte.toString(16).padStart(2, "0")
    ).join("");
    sessionStorage.setItem(REVIEWER, token);
  }
  return token;
}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const ask = async (path, options) => (await send(path, options)).json();
export const fetchText = async (path) => (await send(path)).text();

export const answerImage = (image, action, label = null) =>
  ask("v1/feedback", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ image, action, label, model: model || null }),
  });

export const undoAnswer = (id) => ask(`v1/feedback/${id}`, { method: "DELETE" });

export function predict(files) {
  const form = new FormData();
  for (const file of files) form.append("images", file);
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
      .then((blob) => URL.createObjectURL(blob), () => null);
    pictures.set(name, url);
  }
  return pictures.get(name);
}
