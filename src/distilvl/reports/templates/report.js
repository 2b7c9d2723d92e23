"use strict";
(function () {
  document.documentElement.classList.add("script");
  const data = JSON.parse(document.getElementById("data").textContent);

  /* Reading values off a chart: the nearest logged place under the pointer, or step by step with the arrow keys. */
  function readable(box, chart, frame) {
    const svg = box.querySelector("svg"), readout = box.parentElement.querySelector(".readout");
    const places = chart.places, high = places[places.length - 1];
    const span = high > chart.low ? high - chart.low : 1;
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cursor.setAttribute("class", "cursor");
    let at = -1;
    function nearest(points, x) {
      return points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
    }
    function show(index) {
      at = Math.max(0, Math.min(places.length - 1, index));
      const x = places[at], px = frame.left + ((x - chart.low) / span) * (frame.right - frame.left);
      cursor.setAttribute("d", "M" + px.toFixed(1) + " 10V" + (frame.height - 40));
      svg.appendChild(cursor);
      const values = chart.lines.map((line) => line[0] + " " + nearest(line[1], x)[1].toPrecision(4));
      readout.textContent = chart.x + " " + Number(x.toPrecision(4)) + ": " + values.join("; ");
    }
    function hide() { cursor.remove(); readout.textContent = ""; at = -1; }
    box.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const px = ((event.clientX - area.left) / area.width) * frame.width;
      const x = chart.low + ((px - frame.left) / (frame.right - frame.left)) * span;
      let best = 0;
      places.forEach((p, k) => { if (Math.abs(p - x) < Math.abs(places[best] - x)) best = k; });
      show(best);
    });
    box.addEventListener("pointerleave", hide);
    box.addEventListener("blur", hide);
    box.addEventListener("keydown", (event) => {
      const stride = Math.max(1, Math.round(places.length / 40));
      const to = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: places.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }
  Object.keys(data.charts).forEach((name) => {
    const box = document.getElementById(name);
    if (box) readable(box, data.charts[name], data.frame);
  });

  /* Spaces in three dimensions: points in [-1, 1], turned by yaw and pitch, drawn from back to front. */
  const START = { yaw: -0.7, pitch: 0.35, zoom: 1 };
  const viewers = [];
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), print = window.matchMedia("print");
  const CORNERS = [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]];
  const EDGES = [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]];

  function colours() {
    const style = getComputedStyle(document.documentElement), out = {};
    ["image", "text", "ink", "soft", "line"].forEach((name) => { out[name] = style.getPropertyValue("--" + name).trim(); });
    return out;
  }

  function Viewer(canvas, points) {
    const viewer = { view: Object.assign({}, START) };
    const marks = [].concat(
      points.images.map((p) => ({ p: p, kind: "image", size: 1 })), points.texts.map((p) => ({ p: p, kind: "text", size: 1 })),
      [{ p: points.means[0], kind: "image", size: 2.6 }, { p: points.means[1], kind: "text", size: 2.6 }]);
    viewer.draw = function () {
      const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
      if (!side) return;
      canvas.width = canvas.height = Math.round(side * ratio);
      const pen = canvas.getContext("2d"), colour = colours();
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, side, side);
      const cy = Math.cos(viewer.view.yaw), sy = Math.sin(viewer.view.yaw);
      const cp = Math.cos(viewer.view.pitch), sp = Math.sin(viewer.view.pitch);
      function place(p) {
        const x = cy * p[0] + sy * p[1], away = -sy * p[0] + cy * p[1];
        const up = cp * p[2] - sp * away, depth = sp * p[2] + cp * away;
        const near = (viewer.view.zoom * side * 0.31) / (1 + 0.14 * depth);
        return [side / 2 + x * near, side / 2 - up * near, depth, near / (side * 0.31)];
      }
      function line(a, b, style, width) {
        const from = place(a), to = place(b);
        pen.strokeStyle = style;
        pen.lineWidth = width;
        pen.beginPath();
        pen.moveTo(from[0], from[1]);
        pen.lineTo(to[0], to[1]);
        pen.stroke();
      }
      EDGES.forEach((edge) => line(CORNERS[edge[0]], CORNERS[edge[1]], colour.line, 1));
      pen.fillStyle = colour.soft;
      pen.font = "12px system-ui, sans-serif";
      pen.textAlign = "center";
      [[0, -1.13, -1.13], [-1.13, 0, -1.13], [-1.13, -1.13, 0]].forEach((p, k) => {
        const at = place(p);
        pen.fillText("PC" + (k + 1), at[0], at[1]);
      });
      marks.map((mark) => ({ mark: mark, at: place(mark.p) })).sort((a, b) => b.at[2] - a.at[2]).forEach((one) => {
        const big = one.mark.size > 1, r = 2.5 * one.mark.size * one.at[3], x = one.at[0], y = one.at[1];
        pen.globalAlpha = big ? 1 : 0.65;
        pen.fillStyle = colour[one.mark.kind];
        pen.beginPath();
        if (one.mark.kind === "image") pen.arc(x, y, r, 0, 6.2832);
        else { pen.moveTo(x, y - 1.25 * r); pen.lineTo(x + 1.1 * r, y + 0.75 * r); pen.lineTo(x - 1.1 * r, y + 0.75 * r); pen.closePath(); }
        pen.fill();
        if (big) { pen.strokeStyle = colour.ink; pen.lineWidth = 1.5; pen.stroke(); }
      });
      pen.globalAlpha = 1;
      line(points.means[0], points.means[1], colour.ink, 2);
    };
    viewer.turn = function (yaw, pitch, zoom) {
      const view = viewer.view;
      view.yaw += yaw;
      view.pitch = Math.max(-1.57, Math.min(1.57, view.pitch + pitch));
      view.zoom = Math.max(0.4, Math.min(5, view.zoom * zoom));
    };
    return viewer;
  }

  function act(viewer, change) {
    const together = document.getElementById("together").checked;
    (together ? viewers : [viewer]).forEach((one) => { change(one); one.draw(); });
  }

  const MOVES = { left: [-0.15, 0, 1], right: [0.15, 0, 1], up: [0, -0.15, 1], down: [0, 0.15, 1], in: [0, 0, 1.2], out: [0, 0, 1 / 1.2] };
  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "in", "=": "in", "-": "out", Home: "home" };

  function move(viewer, name) {
    act(viewer, (one) => {
      if (name === "home") one.view = Object.assign({}, START);
      else one.turn.apply(null, MOVES[name]);
    });
  }

  document.querySelectorAll("canvas[data-space]").forEach((canvas) => {
    const viewer = Viewer(canvas, data.spaces[Number(canvas.dataset.space)]);
    viewers.push(viewer);
    let held = null;
    canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      const dx = event.clientX - held[0], dy = event.clientY - held[1];
      held = [event.clientX, event.clientY];
      act(viewer, (one) => one.turn(dx / 120, dy / 120, 1));
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => { held = null; }));
    canvas.addEventListener("keydown", (event) => {
      const name = KEYS[event.key];
      if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(viewer, name);
    });
    canvas.parentElement.querySelectorAll("button[data-turn]").forEach((button) => {
      button.addEventListener("click", () => move(viewer, button.dataset.turn));
    });
    new ResizeObserver(viewer.draw).observe(canvas);
  });
  const redraw = () => viewers.forEach((viewer) => viewer.draw());
  dark.addEventListener("change", redraw);
  print.addEventListener("change", redraw);
  redraw();
})();
