// Curves that can be read and zoomed, all over the same range of updates.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 230, PAD = { left: 52, right: 10, top: 8, bottom: 26 };
  const charts = [];
  let view = null; // [first, last] update shown; null for all

  const make = (name, attributes = {}, parent = null) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  };

  const shown = (value) => {
    if (value === null) return "not finite";
    const size = Math.abs(value);
    const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 3 : 4;
    const text = size > 0 && size < 1e-3 ? value.toExponential(2)
      : value.toLocaleString("en", { maximumFractionDigits: digits });
    return text.replace("-", "\u2212");
  };

  const ticks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + 1e-9 * step; t += step) {
      found.push(Math.abs(t) < 1e-9 * step ? 0 : t);
    }
    return found;
  };

  const logTicks = (low, high) => {
    const found = [];
    for (let e = Math.floor(low); e <= Math.ceil(high); e++) {
      for (const m of [1, 2, 5]) {
        const t = e + Math.log10(m);
        if (t >= low && t <= high) found.push(t);
      }
    }
    return found.length > 6 ? found.filter((t) => Math.abs(t - Math.round(t)) < 1e-9) : found;
  };

  class Chart {
    constructor(figure) {
      const panel = JSON.parse(figure.querySelector("script").textContent);
      this.title = panel.title;
      this.log = panel.log;
      this.series = panel.series;
      this.hidden = new Set();
      this.plot = figure.querySelector(".plot");
      this.reading = figure.querySelector(".reading");
      this.svg = make("svg", { "aria-hidden": "true" }, this.plot);
      this.plot.tabIndex = 0;
      this.plot.setAttribute("role", "group");
      this.plot.setAttribute("aria-label", this.summary());
      const xs = this.series.flatMap((s) => [s.x[0], s.x[s.x.length - 1]]);
      this.range = [Math.min(...xs), Math.max(...xs)];
      this.legend(figure.querySelector(".legend"));
      this.listen();
      this.lost();
    }

    summary() {
      const parts = this.series.map((s) => {
        const finite = s.y.filter((y) => y !== null);
        if (!finite.length) return `${s.name}, no finite value`;
        const ends = `from ${shown(finite[0])} to ${shown(finite[finite.length - 1])}`;
        return `${s.name}, ${ends} over ${s.count} points`;
      });
      return `${this.title}: ${parts.join("; ")}. Arrow keys read single points.`;
    }

    lost() {
      const count = this.series.reduce((sum, s) => sum + s.lost, 0);
      if (count) this.reading.textContent = `${count} of the logged values are not finite and leave gaps.`;
    }

    legend(place) {
      this.series.forEach((s, i) => {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", "true");
        const swatch = make("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" });
        make("path", { d: "M0 4H20", style: this.stroke(s), "stroke-width": 2.5 }, swatch);
        button.append(swatch, s.name);
        button.addEventListener("click", () => {
          this.hidden.has(i) ? this.hidden.delete(i) : this.hidden.add(i);
          button.setAttribute("aria-pressed", String(!this.hidden.has(i)));
          this.draw();
        });
        place.append(button);
      });
    }

    stroke(s) {
      return `stroke: var(--c${s.colour % 8})` + (s.dashed ? "; stroke-dasharray: 4 3" : "");
    }

    get visible() {
      return this.series.filter((_, i) => !this.hidden.has(i));
    }

    value(y) {
      return y === null || (this.log && y <= 0) ? null : this.log ? Math.log10(y) : y;
    }

    draw() {
      const width = this.plot.clientWidth || 600;
      const [first, last] = view || this.range;
      const span = last - first || 1;
      const inner = width - PAD.left - PAD.right, tall = HEIGHT - PAD.top - PAD.bottom;
      let low = Infinity, high = -Infinity;
      for (const s of this.visible) {
        s.x.forEach((x, i) => {
          const y = this.value(s.y[i]);
          if (y !== null && x >= first && x <= last) {
            low = Math.min(low, y);
            high = Math.max(high, y);
          }
        });
      }
      if (low > high) [low, high] = [0, 1];
      const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
      low -= margin;
      high += margin;
      this.px = (x) => PAD.left + ((x - first) / span) * inner;
      this.py = (y) => PAD.top + (1 - (y - low) / (high - low)) * tall;
      this.xAt = (pixel) => first + ((pixel - PAD.left) / inner) * span;

      this.svg.replaceChildren();
      this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      this.svg.setAttribute("height", HEIGHT);
      for (const t of this.log ? logTicks(low, high) : ticks(low, high, 4)) {
        make("path", { class: "grid", d: `M${PAD.left} ${this.py(t)}H${width - PAD.right}` }, this.svg);
        const label = make("text", { x: PAD.left - 8, y: this.py(t) + 4, "text-anchor": "end" }, this.svg);
        label.textContent = shown(this.log ? 10 ** t : t);
      }
      const across = ticks(first, first + span, width < 420 ? 3 : 5);
      for (const t of across) {
        const label = make("text", { x: this.px(t), y: HEIGHT - 6, "text-anchor": "middle" }, this.svg);
        label.textContent = shown(t);
      }
      const clip = make("g", {}, this.svg);
      for (const s of this.visible) {
        let d = "", pen = "M", alone = true;
        s.x.forEach((x, i) => {
          const y = this.value(s.y[i]);
          const near = (s.x[i + 1] ?? x) >= first && (s.x[i - 1] ?? x) <= last;
          if (y === null || !near) {
            pen = "M";
            return;
          }
          const px = Math.min(Math.max(this.px(x), -1e4), 1e4);
          d += `${pen}${px.toFixed(1)} ${Math.min(Math.max(this.py(y), -1e4), 1e4).toFixed(1)}`;
          alone = (s.y[i + 1] ?? null) === null && pen === "M";
          if (alone) d += "h0.01"; // a point without neighbours
          pen = "L";
        });
        const few = s.x.length < 2 ? "; stroke-width: 5; stroke-linecap: round" : "";
        const pale = !s.dashed && s.x.length > 150 ? " pale" : "";
        make("path", { class: `line${pale}`, d, style: this.stroke(s) + few }, clip);
      }
      // What lies beyond the range that is shown.
      const id = `clip-${charts.indexOf(this)}`;
      const frame = make("clipPath", { id }, this.svg);
      make("rect", { x: PAD.left - 3, y: 0, width: inner + 6, height: HEIGHT }, frame);
      clip.setAttribute("clip-path", `url(#${id})`);
      this.marks = make("g", {}, this.svg);
    }

    nearest(s, x) {
      let best = 0;
      s.x.forEach((value, i) => {
        if (Math.abs(value - x) < Math.abs(s.x[best] - x)) best = i;
      });
      return best;
    }

    read(x) {
      const series = this.visible;
      if (!series.length) return;
      const points = series.map((s) => [s, this.nearest(s, x)]);
      const gap = ([s, i]) => Math.abs(s.x[i] - x);
      const [main, at] = points.reduce((a, b) => (gap(b) < gap(a) ? b : a));
      this.at = main.x[at];
      this.marks.replaceChildren();
      const px = this.px(this.at);
      make("path", { class: "cross", d: `M${px} ${PAD.top}V${HEIGHT - PAD.bottom}` }, this.marks);
      const words = [`Update ${shown(this.at)}`];
      for (const [s, i] of points) {
        const y = this.value(s.y[i]);
        const from = s.x[i] === this.at ? "" : ` (at ${shown(s.x[i])})`;
        words.push(`${s.name} ${shown(s.y[i])}${from}`);
        const inside = this.px(s.x[i]) >= PAD.left - 1;
        if (y !== null && inside) {
          const dot = { cx: this.px(s.x[i]), cy: this.py(y), r: 4, style: `fill: var(--c${s.colour % 8})` };
          make("circle", dot, this.marks);
        }
      }
      this.reading.textContent = words.join(" \u00b7 ");
    }

    listen() {
      const plot = this.plot;
      let start = null;
      const place = (event) => event.clientX - plot.getBoundingClientRect().left;
      plot.addEventListener("pointerdown", (event) => {
        start = place(event);
        plot.setPointerCapture(event.pointerId);
      });
      plot.addEventListener("pointermove", (event) => {
        const now = place(event);
        this.read(this.xAt(now));
        if (start !== null && Math.abs(now - start) > 6) {
          const x = Math.min(start, now);
          make("rect", { class: "band", x, y: PAD.top, width: Math.abs(now - start), height: HEIGHT - PAD.top - PAD.bottom }, this.marks);
        }
      });
      plot.addEventListener("pointerup", (event) => {
        const now = place(event);
        if (start !== null && Math.abs(now - start) > 6) {
          zoom([this.xAt(Math.min(start, now)), this.xAt(Math.max(start, now))]);
        } else {
          this.read(this.xAt(now));
        }
        start = null;
      });
      plot.addEventListener("pointercancel", () => { start = null; });
      plot.addEventListener("pointerleave", () => { if (start === null) this.marks.replaceChildren(); });
      plot.addEventListener("dblclick", () => zoom(null));
      plot.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      const [first, last] = view || this.range;
      const xs = [...new Set(this.visible.flatMap((s) => s.x))]
        .filter((x) => x >= first && x <= last).sort((a, b) => a - b);
      const i = this.at === undefined ? -1 : xs.findIndex((x) => x >= this.at);
      const middle = this.at ?? (first + last) / 2;
      const around = (factor) => [middle - (middle - first) * factor, middle + (last - middle) * factor];
      const keys = {
        ArrowRight: () => this.read(xs[Math.min(i + 1, xs.length - 1)]),
        ArrowLeft: () => this.read(xs[i < 0 ? xs.length - 1 : Math.max(i - 1, 0)]),
        Home: () => this.read(xs[0]),
        End: () => this.read(xs[xs.length - 1]),
        "+": () => zoom(around(0.5)),
        "-": () => zoom(around(2)),
        Escape: () => zoom(null),
      };
      if (!keys[event.key] || !xs.length) return;
      event.preventDefault();
      keys[event.key]();
    }
  }

  const zoom = (range) => {
    const all = [Math.min(...charts.map((c) => c.range[0])), Math.max(...charts.map((c) => c.range[1]))];
    view = range && [Math.max(range[0], all[0]), Math.min(range[1], all[1])];
    if (view && (view[1] - view[0] < 1 || (view[0] === all[0] && view[1] === all[1]))) view = null;
    charts.forEach((chart) => chart.draw());
  };

  for (const figure of document.querySelectorAll(".chart")) charts.push(new Chart(figure));
  charts.forEach((chart) => chart.draw());
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) charts.forEach((chart) => chart.draw());
    width = window.innerWidth;
  });
})();
