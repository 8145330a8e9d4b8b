// Keeps a page as the server sees it: asks the JSON twin, swaps the parts that changed, redraws the charts.
// All HTML comes escaped from the server's templates; nothing here makes markup out of data.
import { draw, drawCurves } from "./charts.js";
import { applySort, startSorting } from "./tables.js";

const page = document.getElementById("page");
const indicator = document.getElementById("live");
const known = new Map();
let token = ""; // empty: the first answer brings the charts
let live = page.dataset.live === "true";
let wait = Number(page.dataset.poll);
let misses = 0;
let timer = 0;

function say(state, text) {
  if (indicator.dataset.state === state && indicator.textContent === text) return;
  indicator.dataset.state = state;
  indicator.textContent = text;
}

function ago(seconds) {
  if (seconds < 5) return "just now";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

function tellTimes() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const then = Date.parse(element.dateTime);
    if (Number.isNaN(then)) continue;
    const seconds = Math.max(0, (Date.now() - then) / 1000);
    const text = ago(seconds);
    if (element.textContent !== text) element.textContent = text;
    element.classList.toggle("late", seconds > Number(element.dataset.late || Infinity));
  }
}

const STOPS = "a, button, summary, [tabindex]";
const landmark = (one) => `${one.tagName} ${one.getAttribute("href") ?? one.closest("[data-sort]")?.dataset.sort ?? (one.name ? `${one.name} ${one.value}` : one.className)}`;

// What a person did to a part (opened, scrolled, focused) outlives its renewal.
function swap(name, html) {
  const place = document.querySelector(`[data-fragment="${CSS.escape(name)}"]`);
  if (!place || known.get(name) === html) return;
  known.set(name, html);
  const open = [...place.querySelectorAll("details")].map((one) => one.open);
  const scrolled = [...place.querySelectorAll(".scroll, .log")].map((one) => [
    one.scrollLeft,
    one.scrollHeight - one.scrollTop - one.clientHeight < 8 ? Infinity : one.scrollTop,
  ]);
  const focused = place.contains(document.activeElement) ? landmark(document.activeElement) : null;
  place.innerHTML = html;
  place.querySelectorAll("details").forEach((one, i) => { if (i in open) one.open = open[i]; });
  place.querySelectorAll(".scroll, .log").forEach((one, i) => {
    if (!(i in scrolled)) return;
    one.scrollLeft = scrolled[i][0];
    if (one.classList.contains("log")) one.scrollTop = Math.min(scrolled[i][1], one.scrollHeight);
  });
  if (focused) [...place.querySelectorAll(STOPS)].find((one) => landmark(one) === focused)?.focus({ preventScroll: true });
  applySort(place);
}

function show(answer) {
  for (const [name, html] of Object.entries(answer.fragments)) swap(name, html);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const data = answer.charts[place.dataset.chart];
    if (data) draw(place, data, page.dataset.runs);
  }
  if (answer.charts.curves) drawCurves(document.getElementById("curves"), answer.charts.curves);
  live = answer.live;
  wait = answer.poll_ms;
  tellTimes();
  document.body.dataset.shown = answer.token;
}

async function ask() {
  try {
    const response = await fetch(`${page.dataset.twin}?since=${encodeURIComponent(token)}`, {
      headers: { Accept: "application/json" },
      credentials: "same-origin",
    });
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    const answer = await response.json();
    if (answer.fragments) show(answer);
    token = answer.token;
    misses = 0;
    say(live ? "live" : "still", live ? "live" : "up to date");
  } catch (error) {
    misses += 1;
    if (misses > 1) say("lost", "server out of reach, trying again");
  }
  timer = setTimeout(ask, document.hidden ? Math.max(wait, 15000) : wait * Math.min(2 ** misses, 8));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  clearTimeout(timer);
  ask();
});
startSorting();
setInterval(tellTimes, 1000);
tellTimes();
for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
ask();
