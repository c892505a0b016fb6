// Elements, made without ever reading HTML from data.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function drawn(tag, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

export function say(message, failed = false) {
  const status = byId("status");
  status.textContent = message;
  status.classList.toggle("failed", failed);
}

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
export const counted = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
export const key = (name) => element("kbd", { textContent: name, ariaHidden: "true" });
