"use strict";

// A click on a column header sorts the table by it; a second click turns the order round.
// Cells without a value stay at the end.
function compare(a, b) {
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[column];
  const turned = { ascending: "descending", descending: "ascending" };
  const order = turned[head.getAttribute("aria-sort")] || head.dataset.first;
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * compare(x, y);
  });
  table.tBodies[0].append(...rows);
  heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => sortBy(table, column));
    // A browser leaves a half hidden button where it is. The mouse needs no help, and a header
    // that moves under it would miss the click.
    button.addEventListener("focus", () => {
      if (button.matches(":focus-visible")) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  });
}

// On paper nothing can be unfolded.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const details of unfolded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of unfolded) details.open = false;
});
