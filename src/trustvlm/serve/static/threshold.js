// What would be accepted, at what risk.

import { ask } from "./api.js";
import { byId, drawn, percent, say } from "./dom.js";

const FRAME = { left: 92, right: 600, top: 40, bottom: 240 };
let curve = null;
let highest = 1;

const x = (coverage) => FRAME.left + coverage * (FRAME.right - FRAME.left);
const y = (risk) => FRAME.bottom - (risk / highest) * (FRAME.bottom - FRAME.top);

function draw() {
  const { points, certified } = curve;
  // A tenth at least, so that a good model does not look like a bad one.
  highest = Math.min(1, Math.max(0.1, Math.ceil(11 * Math.max(...points.map((p) => p.risk))) / 10));
  const line = (kind, x1, y1, x2, y2) => drawn("line", { class: kind, x1, y1, x2, y2 });
  const { left, right, top, bottom } = FRAME;
  const at = certified ? points[nearest(certified.threshold)] : null;
  // The threshold has ticks of its own; round ones that would touch them make room.
  const clear = (place, own, least) => own === null || Math.abs(place - own) > least;
  const [ownX, ownY] = at ? [x(at.coverage), y(at.risk)] : [null, null];
  const parts = [line("axis", left, bottom, right, bottom), line("axis", left, top, left, bottom)];
  const xTick = (share, kind) => {
    const place = x(share);
    parts.push(line("axis", place, bottom, place, bottom + 6));
    parts.push(
      drawn("text", { class: kind, x: place, y: bottom + 26, "text-anchor": "middle" }, percent(share))
    );
  };
  const yTick = (share, kind) => {
    const place = y(share);
    parts.push(line("axis", left - 6, place, left, place));
    parts.push(
      drawn("text", { class: kind, x: left - 12, y: place + 5, "text-anchor": "end" }, percent(share))
    );
  };
  for (const share of [0, 0.25, 0.5, 0.75, 1]) if (clear(x(share), ownX, 62)) xTick(share, "");
  for (const part of [0, 0.5, 1]) if (clear(y(part * highest), ownY, 26)) yTick(part * highest, "");
  parts.push(
    drawn("text", { x: (left + right) / 2, y: bottom + 54, "text-anchor": "middle" }, "accepted"),
    drawn("text", { x: left + 10, y: top - 8 }, "wrong among them"),
    drawn("path", {
      class: "line",
      d: points.map((p, i) => `${i ? "L" : "M"}${x(p.coverage)} ${y(p.risk)}`).join(""),
    })
  );
  if (at) {
    parts.push(
      line("upright", ownX, bottom, ownX, ownY),
      line("upright", left, ownY, ownX, ownY),
      drawn("circle", { class: "certified", cx: ownX, cy: ownY, r: 12 })
    );
    xTick(at.coverage, "own");
    yTick(at.risk, "own");
    const words = `certified at ${certified.threshold.toPrecision(3)}`;
    const end = ownX > 320;
    parts.push(
      drawn(
        "text",
        { class: "own", x: ownX + (end ? -18 : 18), y: ownY - 16, "text-anchor": end ? "end" : "start" },
        words
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
    `At confidence ${threshold} and above, ${percent(point.coverage)} are accepted ` +
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
