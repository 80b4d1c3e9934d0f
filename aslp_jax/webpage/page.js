"use strict";

// Makes the columns of every table sort their rows: numbers by data-value, text as read.

function sortRows(table, column, ascending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent : Number(value);
  };
  const order = (a, b) => {
    const [left, right] = [key(a), key(b)];
    if (typeof left === "number" && typeof right === "number") {
      // What is no number stays below, in both directions.
      if (Number.isNaN(left) || Number.isNaN(right)) {
        return Number.isNaN(left) - Number.isNaN(right);
      }
      return ascending ? left - right : right - left;
    }
    // Empty cells, too.
    if (left === "" || right === "") return (left === "") - (right === "");
    const compared = String(left).localeCompare(String(right), "en", { numeric: true });
    return ascending ? compared : -compared;
  };
  body.append(...Array.from(body.rows).sort(order));
}

for (const table of document.querySelectorAll("table")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortRows(table, column, ascending);
    });
  });
}
