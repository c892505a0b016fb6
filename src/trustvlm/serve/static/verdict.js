// How one verdict looks.

import { pictureUrl } from "./api.js";
import { element, percent } from "./dom.js";

const number = (value) => (value === null ? "–" : value.toFixed(2));

export function picture(path, side, alt, extra = "") {
  // The frame is there before the picture, so that nothing moves when it comes.
  const frame = element("div", { className: `picture ${extra}` });
  pictureUrl(path, side).then((url) => {
    const shown = url
      ? element("img", { src: url, alt, decoding: "sync" })
      : element("p", { className: "nothing", textContent: "picture not at hand" });
    frame.replaceChildren(shown);
  });
  return frame;
}

function example(nearest, label, role) {
  if (!nearest) return null;
  return element(
    "figure",
    {},
    picture(`v1/examples/${nearest.shot}`, 192, `Example of ${label}`),
    element("figcaption", {
      textContent: `${role}: ${label}, similarity ${number(nearest.similarity)}`,
    })
  );
}

function fact(name, value) {
  return element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }));
}

export function shownVerdict(verdict, { side = 256, titleId = "" } = {}) {
  const name = element("p", { className: "name", textContent: verdict.path });
  if (verdict.decision === "error") {
    return element(
      "div",
      { className: "facts" },
      name,
      element("p", {}, element("span", { className: "badge error", textContent: "error" })),
      element("p", { textContent: verdict.error })
    );
  }
  const title = element("h3", { textContent: verdict.label });
  if (titleId) title.id = titleId;
  const probability = verdict.p_correct === null ? "not calibrated" : percent(verdict.p_correct);
  const facts = element(
    "div",
    { className: "facts" },
    name,
    element(
      "div",
      { className: "title" },
      title,
      element("span", { className: `badge ${verdict.decision}`, textContent: verdict.decision })
    ),
    verdict.corrected
      ? element("p", { className: "vlm", textContent: `the VLM said ${verdict.vlm_label}` })
      : null,
    element(
      "dl",
      { className: "numbers" },
      fact("P(correct)", probability),
      fact("confidence", number(verdict.confidence)),
      fact("text", number(verdict.text_score)),
      fact("examples", number(verdict.image_score))
    ),
    element("p", { className: "reason", textContent: verdict.reason }),
    element(
      "div",
      { className: "examples" },
      example(verdict.label_example, verdict.label, "nearest example"),
      example(verdict.runner_up_example, verdict.runner_up, "runner-up")
    )
  );
  const main = verdict.kept
    ? picture(`v1/images/${verdict.image}`, side, `The image ${verdict.path}`, "main")
    : element("p", { className: "nothing", textContent: "not kept: no room" });
  return element("div", { className: "verdict" }, main, facts);
}
