// Sortable tables: the choice is kept per page and applied again whenever the rows are renewed.
const KEY = `sort ${location.pathname}`;

function remembered() {
  try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; }
}

function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === ""); // what is not known goes last, whichever the direction
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
}

function sort(table, name, direction) {
  const header = [...table.tHead.rows[0].cells];
  const column = header.findIndex((cell) => cell.dataset.sort === name);
  if (column < 0) return;
  for (const cell of header) cell.removeAttribute("aria-sort");
  header[column].setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return compare(x, y) * (x === "" || y === "" ? 1 : sign);
  });
  table.tBodies[0].append(...rows);
}

export function applySort(place) {
  const choice = remembered();
  if (!choice) return;
  for (const table of place.querySelectorAll("table:has(th[data-sort])")) sort(table, choice.name, choice.direction);
}

export function startSorting() {
  document.addEventListener("click", (event) => {
    const cell = event.target.closest("th[data-sort]");
    if (!cell || !event.target.closest("button")) return;
    const name = cell.dataset.sort;
    const direction = cell.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    sessionStorage.setItem(KEY, JSON.stringify({ name, direction }));
    sort(cell.closest("table"), name, direction);
  });
  applySort(document);
}
