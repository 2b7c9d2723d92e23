// The search page: the query (words, a picture of the index), and when it is run; stale results are dropped.

import { thumbnail } from "./fetch.js";
import { TextTower } from "./text_tower.js";
import { PictureIndex } from "./picture_index.js";
import { nameOf, Tiles } from "./tiles.js";

const PAUSE_MS = 150; // between the last key and the search
const MOST = 60;

const $ = (id) => document.getElementById(id);
const [text, example, status, trouble] = ["text", "example", "status", "trouble"].map($);

let like = ""; // id of a picture of the index
let tower = null;
let pictures = null;
let current = new AbortController();
let timer = 0;

const tiles = new Tiles($("results"), {
  chosen(hit) {
    like = hit.id;
    text.value = "";
    history.pushState(null, "", address());
    search();
    scrollTo(0, 0);
  },
  left: () => text.focus(),
});

async function search() {
  clearTimeout(timer);
  current.abort();
  current = new AbortController();
  const { signal } = current;
  if (!tower) return; // called again when it has come
  showExample();
  const words = text.value.trim();
  if (!words && !like) {
    tiles.show([], signal);
    status.textContent = `${counted(pictures.all.length)} to search in`;
    return;
  }
  $("results").classList.add("stale");
  try {
    const query = await embeddingOf(words);
    if (signal.aborted) return;
    const hits = pictures.nearest(query, MOST);
    tiles.show(hits, signal);
    status.textContent = `The ${counted(hits.length)} that fit best, of ${pictures.all.length.toLocaleString("en")}`;
    trouble.textContent = "";
    $("results").classList.remove("stale");
  } catch (error) {
    if (!signal.aborted) trouble.textContent = `This text cannot be searched: ${error.message}`;
  }
}

// The query of words and a picture together is what lies between them.
async function embeddingOf(words) {
  if (!words) return pictures.embedding(like);
  const text = await tower.encode(words);
  if (!like) return text;
  const picture = pictures.embedding(like);
  const sum = text.map((value, k) => value + picture[k]);
  const norm = Math.hypot(...sum) || 1;
  return sum.map((value) => value / norm);
}

function counted(number) {
  return number === 1 ? "1 picture" : `${number.toLocaleString("en")} pictures`;
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    history.replaceState(null, "", address());
    search();
  }, PAUSE_MS);
}

function showExample() {
  example.hidden = !like;
  if (!like) return;
  const { path } = pictures.get(like);
  $("example-name").textContent = nameOf(path);
  $("example-folder").textContent = path.slice(0, -nameOf(path).length);
  thumbnail(`thumbnails/${like}.jpg`).then((url) => { $("example-picture").src = url; });
}

function drop() {
  like = "";
  history.pushState(null, "", address());
  search();
  text.focus();
}

// The address holds the query, so that reload, back and bookmarks work.
function address() {
  const held = new URLSearchParams();
  if (text.value.trim()) held.set("q", text.value.trim());
  if (like) held.set("like", like);
  return held.size ? `?${held}` : location.pathname;
}

function restore() {
  const held = new URLSearchParams(location.search);
  text.value = held.get("q") ?? "";
  like = held.get("like") ?? "";
  if (pictures && !pictures.has(like)) like = "";
  search();
}

async function start() {
  try {
    const opened = await TextTower.open();
    pictures = await PictureIndex.open(opened.about.width);
    tower = opened;
  } catch (error) {
    status.textContent = "";
    trouble.textContent = `The model or the index cannot be loaded (${error.message}).`;
    return;
  }
  if (!pictures.has(like)) like = "";
  search();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  soon();
});
text.addEventListener("input", soon);
$("example-remove").addEventListener("click", drop);
addEventListener("popstate", restore);
text.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && tiles.focus()) event.preventDefault();
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== text) {
    event.preventDefault();
    text.focus();
  }
  if (event.key !== "Escape") return;
  event.preventDefault();
  if (document.activeElement !== text) text.focus();
  else if (text.value) {
    text.value = "";
    soon();
  } else if (like) drop();
});

restore();
start();
text.focus();
