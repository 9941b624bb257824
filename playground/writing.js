// Frames of handwriting on the sheet, and the visitor's own strokes.
"use strict";

class Writing {
  static LINE = 84;
  static MARGIN = 26;
  static REST = 1300;            // milliseconds without ink, after which the model goes on
  going = "The model writes. Draw on the sheet, and it goes on from there.";
  ready = "Draw on the sheet, or start, and the model writes.";

  constructor() {
    this.clear();
    paper.addEventListener("pointerdown", event => this.press(event));
    paper.addEventListener("pointermove", event => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      paper.addEventListener(end, event => this.lift(event));
    }
    this.tick = this.tick.bind(this);
    requestAnimationFrame(this.tick);
  }

  running() { this.last = null; }

  clear() {
    clearTimeout(this.rest);
    this.drawn = [];             // strokes under the visitor's hand, points [x, y, milliseconds]
    this.hand = null;            // the pointer that draws
    this.begun = false;
    this.queue = [];             // numbers of frames to be shown
    this.strokes = [];           // points [x, y] on an endless sheet, y from its top
    this.primed = 0;             // how many of them are the visitor's
    this.x = Writing.MARGIN;
    this.y = this.base = Writing.LINE * .75;
    this.up = true;
    this.due = 0;
    this.scroll = 0;
    this.fresh = true;
  }

  // The visitor's own drawing comes back as the model reads it.
  prime(frames) {
    this.begun = true;
    if (frames.length) {
      this.down();
      this.show(frames);
      this.primed = this.strokes.length;
    }
  }

  take(frames) { this.queue.push(...frames); }

  down() {
    this.strokes.push([[this.x, this.y]]);
    this.up = false;
  }

  show(frames) {
    for (let i = 0; i < frames.length; i += 3) {
      const [lift, dx, dy] = [frames[i], frames[i + 1] * about.unit, -frames[i + 2] * about.unit];
      const jump = this.up;
      this.x += dx;
      this.y += dy;
      if (jump) this.wrap(dx);
      if (jump) this.down(); else this.strokes.at(-1).push([this.x, this.y]);
      this.up = lift > .5;
    }
    this.fresh = true;
  }

  // The model knows neither the end of the line nor the line: between two strokes the sheet moves
  // under its hand.
  wrap(dx) {
    const width = paper.clientWidth - Writing.MARGIN, drift = Math.abs(this.y - this.base);
    if (this.x > width || this.x > width - 90 && dx > 14) {
      this.x = 1.5 * Writing.MARGIN;
      this.base += Writing.LINE;
      this.y = this.base;
    }
    if (drift > Writing.LINE * (dx > 14 ? .4 : .7)) this.y = this.base;
    this.x = Math.max(this.x, Writing.MARGIN);
  }

  press(event) {
    if (this.hand !== null || event.button !== 0 || broken) return;
    if (!this.drawn.length) {
      setRunning(false);
      this.clear();
      say("Your turn: the model goes on when you rest.");
    }
    clearTimeout(this.rest);
    this.hand = event.pointerId;
    paper.setPointerCapture(event.pointerId);
    this.drawn.push([this.point(event)]);
    this.fresh = true;
  }

  move(event) {
    if (event.pointerId !== this.hand) return;
    const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const one of all.length ? all : [event]) this.drawn.at(-1).push(this.point(one));
    this.fresh = true;
  }

  lift(event) {
    if (event.pointerId !== this.hand) return;
    this.hand = null;
    this.rest = setTimeout(() => start(this.drawn), Writing.REST);
  }

  drawing() { return this.drawn; }

  point(event) {
    const box = paper.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top, event.timeStamp];
  }

  tick(now) {
    const rate = about.rate > 10 ? about.rate : 60;  // Some corpora do not know theirs.
    if (running && !this.drawn.length) {
      this.due += rate * Math.min(now - (this.last ?? now), 100) / 1000;
      this.last = now;
      const n = Math.min(Math.floor(this.due), this.queue.length / 3);
      this.due = n < Math.floor(this.due) ? 0 : this.due - n;
      if (n) this.show(this.queue.splice(0, 3 * n));
      if (this.queue.length < 3 * rate / 3) more(16);
    }
    if (this.fresh || this.size !== `${paper.clientWidth} ${paper.clientHeight}`) this.draw();
    requestAnimationFrame(this.tick);
  }

  draw() {
    const {width, height} = fit(), line = Writing.LINE;
    this.size = `${paper.clientWidth} ${paper.clientHeight}`;
    this.fresh = false;
    const overflow = this.base + line / 2 - height;
    if (overflow > this.scroll) {
      this.scroll += Math.max((overflow - this.scroll) / 6, .5);
      this.fresh = this.scroll < overflow;
    }
    brush.translate(0, -this.scroll);
    brush.strokeStyle = colour("--rule");
    brush.lineWidth = 1;
    brush.beginPath();
    for (let y = line * .75 + 16; y < this.scroll + height; y += line) {
      brush.moveTo(Writing.MARGIN / 2, y);
      brush.lineTo(width - Writing.MARGIN / 2, y);
    }
    brush.stroke();
    this.forget();
    brush.lineWidth = 1.7;
    brush.lineCap = brush.lineJoin = "round";
    this.strokes.forEach((stroke, i) => this.trace(stroke, i < this.primed ? "--accent" : "--ink"));
    if (running && this.begun) this.tip();
    brush.translate(0, this.scroll);
    for (const stroke of this.drawn) this.trace(stroke, "--accent");
    if (!this.strokes.length && !this.drawn.length) this.hint(width, height);
    const what = this.strokes.length ? `Handwriting, ${this.strokes.length} strokes so far` : "An empty sheet to draw on";
    if (this.strokes.length % 10 === 0) paper.setAttribute("aria-label", what);
  }

  // What has scrolled away for good.
  forget() {
    const gone = this.strokes.findIndex(stroke => stroke.at(-1)[1] > this.scroll - Writing.LINE);
    if (gone > 200) {
      this.strokes.splice(0, gone);
      this.primed = Math.max(this.primed - gone, 0);
    }
  }

  trace(stroke, name) {
    brush.strokeStyle = colour(name);
    brush.beginPath();
    brush.moveTo(stroke[0][0], stroke[0][1]);
    for (const [x, y] of stroke) brush.lineTo(x, y);
    brush.stroke();
  }

  tip() {
    brush.fillStyle = colour("--accent");
    brush.beginPath();
    brush.arc(this.x, this.y, 2.6, 0, 7);
    brush.fill();
  }

  hint(width, height) {
    brush.fillStyle = colour("--soft");
    brush.font = "italic 1.25rem Georgia, serif";
    brush.textAlign = "center";
    brush.fillText("Write something here", width / 2, height / 2);
  }
}
