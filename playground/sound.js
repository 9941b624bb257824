// Frames of sound as they are heard, and their waveform on the sheet.
"use strict";

class Sound {
  static SECONDS = 4;            // on screen
  static AHEAD = .8;             // seconds of sound in store
  going = "The model speaks.";
  ready = "Start, and the model speaks.";

  constructor() {
    this.clear();
    this.tick = this.tick.bind(this);
    requestAnimationFrame(this.tick);
  }

  clear() {
    this.begun = false;
    this.context?.close();
    this.context = null;
    this.samples = new Float32Array(0);  // what is on screen or in store
    this.first = 0;                      // place of its first sample since the start
    this.late = 0;
    this.peak = .02;                     // what fills the sheet
  }

  drawing() { return []; }

  prime() {
    this.begun = true;
    this.context = new AudioContext({sampleRate: about.rate});
    this.next = this.origin = this.context.currentTime + .1;
  }

  running(on) {
    if (this.context) on ? this.context.resume() : this.context.suspend();
  }

  take(frames) {
    if (!this.context) return;
    const sound = frames.map(level => level * about.unit);
    const buffer = this.context.createBuffer(1, sound.length, about.rate);
    buffer.copyToChannel(sound, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const now = this.context.currentTime + .02;
    if (this.next < now) {               // The model was too slow: silence has been heard.
      this.origin += now - this.next;
      this.next = now;
      if (++this.late === 5) say("The model needs longer for its sound than the sound lasts.", true);
    }
    source.start(this.next);
    this.next += sound.length / about.rate;
    this.keep(sound);
  }

  keep(sound) {
    const drop = Math.max(0, this.samples.length - (Sound.SECONDS + 2 * Sound.AHEAD) * about.rate);
    const kept = new Float32Array(this.samples.length - drop + sound.length);
    kept.set(this.samples.subarray(drop));
    kept.set(sound, this.samples.length - drop);
    this.samples = kept;
    this.first += drop;
  }

  tick() {
    if (running && this.context && this.next - this.context.currentTime < Sound.AHEAD) {
      more(Math.min(64, Math.max(1, Math.round(.2 * about.rate / about.width))));
    }
    this.draw();
    requestAnimationFrame(this.tick);
  }

  draw() {
    const {width, height} = fit(), middle = height / 2;
    brush.fillStyle = colour("--rule");
    brush.fillRect(0, middle, width, 1);
    if (!this.context) return this.hint(width, middle);
    const heard = Math.floor((this.context.currentTime - this.origin) * about.rate) - this.first;
    const each = Sound.SECONDS * about.rate / width;
    this.peak += (Math.max(.02, this.samples.reduce((a, b) => Math.max(a, Math.abs(b)), 0)) - this.peak) / 20;
    const tall = .92 * middle / this.peak;
    brush.fillStyle = colour("--ink");
    for (let x = 0; x < width; x++) {
      const end = Math.floor(heard - (width - 1 - x) * each), begin = Math.floor(end - each);
      let low = Infinity, high = -Infinity;
      for (let i = Math.max(begin, 0); i < Math.min(end, this.samples.length); i++) {
        low = Math.min(low, this.samples[i]);
        high = Math.max(high, this.samples[i]);
      }
      if (low <= high) brush.fillRect(x, middle - high * tall, 1, Math.max((high - low) * tall, 1));
    }
    paper.setAttribute("aria-label", `The waveform of the last ${Sound.SECONDS} seconds`);
  }

  hint(width, middle) {
    brush.fillStyle = colour("--soft");
    brush.font = "italic 1.25rem Georgia, serif";
    brush.textAlign = "center";
    brush.fillText("Press Start to listen", width / 2, middle - 16);
  }
}
