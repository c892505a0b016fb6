// What would be accepted, at what risk.

import { ask } from "./api.js";
import { byId, drawn, percent, say } from "./dom.js";

const FRAME = { left: 80, right: 610, top: 24, bottom: 240 };
let curve = null;
let highest = 1;

const x = (coverage) => FRAME.left + coverage * (FRAME.right - FRAME.left);
const y = (risk) => FRAME.bottom - (risk / highest) * (FRAME.bottom - FRAME.top);

function draw() {
  const { points, certified } = curve;
  // A tenth at least, so that a good model does not look like a bad one.
  highest = Math.min(1, Math.max(0.1, Math.ceil(11 * Math.max(...points.map((p) => p.risk))) / 10));
  const axis = (x1, y1, x2, y2) => drawn("line", { class: "axis", x1, y1, x2, y2 });
  const { left, right, top, bottom } = FRAME;
  const parts = [
    axis(left, bottom, right, bottom),
    axis(left, top, left, bottom),
    drawn("text", { x: left, y: bottom + 26, "text-anchor": "middle" }, "0 %"),
    drawn("text", { x: right, y: bottom + 26, "text-anchor": "end" }, "100 % accepted"),
    drawn("text", { x: left - 10, y: bottom, "text-anchor": "end" }, "0"),
    drawn("text", { x: left - 10, y: top + 8, "text-anchor": "end" }, percent(highest)),
    drawn("text", { x: left + 10, y: top + 8 }, "wrong among them"),
    drawn("path", {
      class: "line",
      d: points.map((p, i) => `${i ? "L" : "M"}${x(p.coverage)} ${y(p.risk)}`).join(""),
    }),
  ];
  if (certified) {
    const at = nearest(certified.threshold);
    const [cx, cy] = [x(points[at].coverage), y(points[at].risk)];
    parts.push(
      drawn("line", { class: "upright", x1: cx, x2: cx, y1: bottom, y2: top + 40 }),
      drawn("circle", { class: "certified", cx, cy, r: 12 }),
      drawn(
        "text",
        { x: cx, y: bottom + 52, "text-anchor": cx > 320 ? "end" : "start" },
        "certified"
      )
    );
  }
  parts.push(drawn("circle", { class: "here", id: "here", r: 8 }));
  byId("curve").replaceChildren(...parts);
}

// The most lenient point that accepts nothing below the threshold.
function nearest(threshold) {
  const at = curve.points.findLastIndex((p) => p.threshold >= threshold);
  return Math.max(at, 0);
}

function move() {
  const point = curve.points[Number(byId("slider").value)];
  byId("here").setAttribute("cx", x(point.coverage));
  byId("here").setAttribute("cy", y(point.risk));
  const { certified } = curve;
  const at = certified ? nearest(certified.threshold) - Number(byId("slider").value) : 0;
  // All digits: who types the threshold in again must accept the same images.
  const threshold = certified && at === 0 ? certified.threshold : point.threshold;
  const words =
    `At trust ${threshold} and above, ${percent(point.coverage)} are accepted ` +
    `(${point.accepted} of ${curve.images}); ${percent(point.risk)} of those are wrong ` +
    `(${point.wrong}).`;
  let guarantee = " No single threshold is certified.";
  if (certified && at === 0) guarantee = " This is the certified threshold: the guarantee below holds.";
  if (certified && at > 0) {
    guarantee = " Stricter than the certified threshold, for which the guarantee below is made.";
  }
  if (certified && at < 0) guarantee = " Beyond the certified threshold: nothing is guaranteed.";
  byId("curve-words").textContent = words + guarantee;
  byId("slider").setAttribute("aria-valuetext", `${percent(point.coverage)} accepted`);
}

export async function refresh() {
  try {
    curve = await ask("v1/curve");
  } catch (error) {
    say(error.message, true);
    return;
  }
  byId("curve-none").hidden = Boolean(curve);
  byId("curve-view").hidden = !curve;
  if (!curve) return;
  byId("curve-n").textContent = String(curve.images);
  byId("curve-statement").textContent = curve.statement;
  byId("to-certified").hidden = !curve.certified;
  draw();
  byId("slider").max = String(curve.points.length - 1);
  byId("slider").value = String(curve.certified ? nearest(curve.certified.threshold) : 0);
  move();
}

export function setUp() {
  byId("slider").addEventListener("input", move);
  byId("to-certified").addEventListener("click", () => {
    byId("slider").value = String(nearest(curve.certified.threshold));
    move();
  });
}
