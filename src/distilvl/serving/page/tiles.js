// The pictures found: a list of buttons through which the arrow keys move.

import { thumbnail } from "/page/fetch.js";

// Control characters and marks of the direction of writing, by which a name may look like another, as escapes.
export function printable(name) {
  return name.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

const COPIES_NAMED = 10;

function copiesOf(hit) {
  const count = hit.paths?.length ?? 1;
  if (count < 2) return { badge: "", title: "" };
  const shown = hit.paths.slice(0, COPIES_NAMED).map(printable).join("\n");
  const more = count > COPIES_NAMED ? `\nand ${(count - COPIES_NAMED).toLocaleString("en")} more` : "";
  const badge = `${count.toLocaleString("en")} copies`;
  return { badge, title: `\n${badge}:\n${shown}${more}` };
}

function tile(hit) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const line = document.createElement("span");
  const name = document.createElement("b");
  const score = document.createElement("i");
  // Panoramas and towers would make rows that are no rows.
  item.style.setProperty("--shape", Math.min(2.5, Math.max(0.6, hit.width / hit.height)).toFixed(3));
  button.type = "button";
  button.className = "tile";
  const copies = copiesOf(hit);
  button.title = `${printable(hit.path)}\n${hit.date.slice(0, 10)}, ${hit.width} × ${hit.height}${copies.title}`;
  image.alt = "";
  image.draggable = false;
  name.textContent = printable(nameOf(hit.path));
  score.textContent = hit.score.toFixed(3);
  const counted = copies.badge ? `, ${copies.badge}` : "";
  button.setAttribute("aria-label", `${printable(nameOf(hit.path))}${counted}, similarity ${hit.score.toFixed(3)}: find similar pictures`);
  line.append(name, score);
  button.append(image, line);
  if (copies.badge) {
    const badge = document.createElement("em");
    badge.textContent = copies.badge;
    button.append(badge);
  }
  item.append(button);
  return { item, button, image };
}

export class Tiles {
  constructor(list, { chosen, left }) {
    this.list = list;
    this.chosen = chosen;
    this.left = left;
    // Pictures are fetched when they come near the screen.
    this.near = new IntersectionObserver((entries) => this.load(entries), { rootMargin: "300px" });
    this.loaders = new WeakMap();
    list.addEventListener("keydown", (event) => this.moved(event));
    list.addEventListener("focusin", (event) => this.tabTo(event.target));
  }

  show(hits, signal) {
    const wasHere = this.list.contains(document.activeElement);
    this.near.disconnect();
    this.list.replaceChildren(
      ...hits.map((hit) => {
        const { item, button, image } = tile(hit);
        button.tabIndex = -1;
        button.addEventListener("click", () => this.chosen(hit));
        this.loaders.set(item, async () => { image.src = await thumbnail(hit.thumbnail, signal); });
        this.near.observe(item);
        return item;
      }),
    );
    if (!this.buttons[0]) return;
    this.buttons[0].tabIndex = 0;
    if (wasHere) this.buttons[0].focus({ preventScroll: true });
  }

  load(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.near.unobserve(target);
      this.loaders.get(target)().catch(() => {}); // the next query has come, or the picture has left the index
    }
  }

  get buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  focus() {
    const first = this.list.querySelector("button[tabindex='0']");
    if (first) first.focus();
    return Boolean(first);
  }

  tabTo(target) {
    for (const button of this.buttons) button.tabIndex = button === target ? 0 : -1;
  }

  moved(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = this.buttons;
    const here = buttons.indexOf(document.activeElement);
    if (here < 0) return;
    const places = {
      ArrowRight: here + 1,
      ArrowLeft: here - 1,
      ArrowDown: this.inRow(buttons, here, 1),
      ArrowUp: this.inRow(buttons, here, -1),
      Home: 0,
      End: buttons.length - 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    const next = places[event.key];
    if (next < 0) this.left();
    else if (next < buttons.length) buttons[next].focus();
  }

  // The picture above or below whose middle is nearest; rows hold different numbers of pictures.
  inRow(buttons, here, step) {
    const boxes = buttons.map((button) => button.getBoundingClientRect());
    const own = boxes[here];
    const beyond = boxes.filter((box) => (step > 0 ? box.top > own.top + 2 : box.top < own.top - 2));
    if (beyond.length === 0) return step > 0 ? here : -1;
    const top = (step > 0 ? beyond[0] : beyond[beyond.length - 1]).top;
    const distance = (box) => Math.abs(box.left + box.width / 2 - own.left - own.width / 2);
    const row = boxes.filter((box) => Math.abs(box.top - top) <= 2);
    return boxes.indexOf(row.reduce((best, box) => (distance(box) < distance(best) ? box : best)));
  }
}
