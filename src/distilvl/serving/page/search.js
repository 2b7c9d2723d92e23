// The search page: the query (words, a picture, filters), and when it is sent; stale answers are dropped.

import { Refused, remember, request, thumbnail } from "/page/fetch.js";
import { nameOf, printable, Tiles } from "/page/tiles.js";

const PAUSE_MS = 150; // between the last key and the request
const MOST = 60;

const $ = (id) => document.getElementById(id);
const [text, file, example, status, trouble, door] = ["text", "file", "example", "status", "trouble", "door"].map($);
const filters = ["minus", "folder", "since", "until"].map($);
const copies = $("copies");

let picture = null; // {like, name, thumbnail} of the index, or {image, name, url} of the user's own
let current = new AbortController();
let timer = 0;

const tiles = new Tiles($("results"), {
  chosen(hit) {
    picture = { like: hit.id, name: hit.path, thumbnail: hit.thumbnail };
    text.value = "";
    history.pushState(picture, "", address());
    search();
    scrollTo(0, 0);
  },
  left: () => text.focus(),
});

// -- the request

function query() {
  const fields = { top: MOST };
  if (text.value.trim()) fields.text = text.value.trim();
  if (picture?.like) fields.like = picture.like;
  if (picture?.image) fields.image = picture.image;
  for (const field of filters) if (field.value.trim()) fields[field.id] = field.value.trim();
  if (copies.checked) fields.copies = true;
  return fields;
}

async function search() {
  clearTimeout(timer);
  current.abort();
  current = new AbortController();
  const { signal } = current;
  showExample(signal);
  const fields = query();
  trouble.textContent = "";
  if (!fields.text && !picture) {
    tiles.show([], signal);
    status.textContent = "";
    return;
  }
  $("results").classList.add("stale");
  try {
    const answer = await (await request("/search", signal, fields)).json();
    signal.throwIfAborted();
    tiles.show(answer.hits, signal);
    const found = answer.hits.length;
    const count = found === 1 ? "1 picture" : `${found} pictures`;
    status.textContent = found ? `The ${count} that fit best, of ${answer.photos.toLocaleString("en")}` : "No picture in that folder and time";
  } catch (error) {
    if (!signal.aborted) failed(error);
  } finally {
    if (!signal.aborted) $("results").classList.remove("stale");
  }
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) {
    $("key").value = "";
    if (!door.open) door.showModal();
  } else {
    trouble.textContent = error instanceof Refused ? error.message : "The server cannot be reached.";
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    history.replaceState(picture?.like ? picture : null, "", address());
    search();
  }, PAUSE_MS);
}

// -- the picture of the query

function showExample(signal) {
  example.hidden = !picture;
  if (!picture) return;
  const path = picture.name ?? "a picture of the index";
  $("example-name").textContent = printable(nameOf(path));
  $("example-folder").textContent = printable(path.slice(0, -nameOf(path).length));
  const shown = $("example-picture");
  shown.removeAttribute("src");
  if (picture.url) shown.src = picture.url;
  else thumbnail(picture.thumbnail, signal).then((url) => { shown.src = url; }, () => {});
}

function take(chosen) {
  if (!chosen) return;
  if (chosen.type && !chosen.type.startsWith("image/")) {
    trouble.textContent = `${chosen.name} is not a picture.`;
    return;
  }
  const reader = new FileReader();
  reader.addEventListener("error", () => { trouble.textContent = `${chosen.name} cannot be read.`; });
  reader.addEventListener("load", () => {
    if (picture?.url) URL.revokeObjectURL(picture.url);
    // The server goes by the content, whatever type the browser guesses.
    const image = `data:image/unknown;base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`;
    picture = { image, name: chosen.name, url: URL.createObjectURL(chosen) };
    history.pushState(null, "", address());
    search();
  });
  reader.readAsDataURL(chosen);
}

function drop() {
  picture = null;
  history.pushState(null, "", address());
  search();
  text.focus();
}

// -- the address holds the query, so that reload, back and bookmarks work

function address() {
  const fields = new URLSearchParams();
  if (text.value.trim()) fields.set("q", text.value.trim());
  if (picture?.like) fields.set("like", picture.like);
  for (const field of filters) if (field.value.trim()) fields.set(field.id, field.value.trim());
  if (copies.checked) fields.set("copies", "true");
  const query = fields.toString();
  return query ? `/?${query}` : "/";
}

function restore() {
  const fields = new URLSearchParams(location.search);
  const like = fields.get("like");
  text.value = fields.get("q") ?? "";
  for (const field of filters) field.value = fields.get(field.id) ?? "";
  copies.checked = fields.get("copies") === "true";
  if (copies.checked || filters.some((field) => field.value)) $("filters").open = true;
  picture = like ? { like, name: history.state?.name, thumbnail: `/thumbnails/${encodeURIComponent(like)}` } : null;
  search();
}

// -- events

// The server reads more formats than browsers do.
$("example-picture").addEventListener("error", (event) => event.target.removeAttribute("src"));
text.addEventListener("input", soon);
for (const field of [...filters, copies]) field.addEventListener("input", soon);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  history.replaceState(picture?.like ? picture : null, "", address());
  search();
});
file.addEventListener("change", () => {
  take(file.files[0]);
  file.value = ""; // so that the same file can be taken again
});
$("example-remove").addEventListener("click", drop);
addEventListener("popstate", restore);

text.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && tiles.focus()) event.preventDefault();
});
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    text.focus();
  }
  if (event.key !== "Escape" || door.open) return;
  event.preventDefault();
  if (document.activeElement !== text) text.focus();
  else if (text.value) {
    text.value = "";
    soon();
  } else if (picture) drop();
});

let inside = 0; // dragenter and dragleave also come from every element on the way
const hasFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (hasFile(event)) $("drop").hidden = (inside += 1) === 0;
});
addEventListener("dragleave", (event) => {
  if (hasFile(event)) $("drop").hidden = (inside -= 1) === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("drop").hidden = true;
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    take(event.clipboardData.files[0]);
  }
});

$("door-form").addEventListener("submit", (event) => {
  event.preventDefault();
  remember($("key").value.trim());
  door.close();
  search();
});

restore();
text.focus();
