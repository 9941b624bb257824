// The page: its controls, and the socket that brings frames.
"use strict";
const $ = id => document.getElementById(id);
const paper = $("paper"), brush = paper.getContext("2d");
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

let about, socket, stage;       // stage: what shows the frames, Writing or Sound
let waiting = null;             // what the one answer under way will be used for
let next = null;                // what to ask instead, once it is here
let running = false;            // frames are wanted
let broken = false;             // the connection is gone

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function setRunning(on) {
  running = on;
  $("go").textContent = on ? "Pause" : stage.begun ? "Go on" : "Start";
  stage.running(on);
}

function ask(message, then) {
  waiting = then;
  socket.send(JSON.stringify(message));
}

function controls() {
  const offsets = [...document.querySelectorAll("#sliders input")].map(slider => +slider.value);
  return {temperature_z: +$("tz").value, temperature_x: +$("tx").value, offsets};
}

// Starts a stream after some strokes; what an older stream still sends is dropped.
function start(strokes = []) {
  if (broken) return;
  stage.clear();
  const seed = Math.min(Math.max(Math.floor(+$("seed").value) || 0, 0), 4294967295);
  $("seed").value = seed;
  next = () => ask({type: "start", seed, strokes}, frames => {
    stage.prime(frames);
    setRunning(true);
    say(stage.going);
  });
  if (!waiting) proceed();
}

function proceed() {
  const begin = next;
  next = null;
  begin();
}

function more(frames) {
  if (!waiting && running && !broken && stage.begun) {
    ask({type: "more", frames, ...controls()}, answer => stage.take(answer));
  }
}

function connect() {
  socket = new WebSocket(`ws://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = event => {
    const message = typeof event.data === "string" ? JSON.parse(event.data) : null;
    if (message?.type === "about") return setUp(message);
    const then = waiting;
    waiting = null;
    if (next) return proceed();
    if (!message) return then(new Float32Array(event.data));
    stage.clear();
    setRunning(false);
    say(message.text[0].toUpperCase() + message.text.slice(1) + ".", true);
  };
  socket.onclose = () => {
    broken = true;
    if (stage) setRunning(false);
    for (const button of document.querySelectorAll("button")) button.disabled = true;
    say("The connection is gone. Is the program still running? Reload the page to try again.", true);
  };
}

function setUp(message) {
  about = message;
  const pen = about.kind === "pen";
  document.body.className = about.kind;
  stage = pen ? new Writing() : new Sound();
  $("about").textContent = `${about.model} trained on ${about.corpus}, `
    + `${about.parameters.toLocaleString("en")} parameters, `
    + (about.latents ? `${about.latents} latent dimensions` : "no latent variables");
  $("tx-what").textContent = pen ? "How much the pen strays on the way there."
    : "How noisy the samples of a frame are.";
  $("latents").hidden = $("style").hidden = !about.latents;
  $("style-what").textContent = about.styles.length
    ? "Each moves one of the strongest latent dimensions away from what the model expects, in "
      + "standard deviations of its prior, at every step. Said of each is what was measured "
      + "to change from −2 to +2."
    : "Moving any latent dimension of this model changes next to nothing: it has not learned to "
      + "use them.";
  about.styles.forEach(addSlider);
  $("reset").hidden = !about.styles.length;
  $("seed").value = Math.floor(Math.random() * 1e6);
  for (const button of document.querySelectorAll("button")) button.disabled = false;
  if (pen && !calm) start(); else { setRunning(false); say(stage.ready); }
}

function addSlider(style) {
  const id = `z${style.dimension}`, box = document.createElement("div");
  box.className = "slider";
  box.innerHTML = `<label for="${id}"><span>dimension ${style.dimension}</span><output for="${id}" id="${id}-out">0.0</output></label>
    <input id="${id}" type="range" min="-3" max="3" step="0.1" value="0" aria-describedby="${id}-what">
    <p class="soft" id="${id}-what"></p>`;
  box.querySelector("p").textContent = style.effect || "Nothing was measured to change.";
  $("sliders").append(box);
}

function show(slider) {
  const digits = slider.id[0] === "t" ? 2 : 1;
  $(`${slider.id}-out`).textContent = (+slider.value).toFixed(digits);
}

document.addEventListener("input", event => { if (event.target.type === "range") show(event.target); });
$("go").onclick = () => {
  if (!running && !stage.begun) return start(stage.drawing());
  setRunning(!running);
  say(running ? stage.going : "Paused.");
};
$("again").onclick = () => { $("seed").value = (+$("seed").value || 0) + 1; start(); };
$("seed").onchange = () => start();
$("reset").onclick = () => {
  for (const slider of document.querySelectorAll("#sliders input")) { slider.value = 0; show(slider); }
};

document.addEventListener("visibilitychange", () => stage?.running(running && !document.hidden));

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);

// Makes the canvas as sharp as the screen; returns its size in CSS pixels.
function fit() {
  const sharp = devicePixelRatio || 1, {width, height} = paper.getBoundingClientRect();
  if (paper.width !== Math.round(width * sharp) || paper.height !== Math.round(height * sharp)) {
    paper.width = Math.round(width * sharp);
    paper.height = Math.round(height * sharp);
  }
  brush.setTransform(sharp, 0, 0, sharp, 0, 0);
  brush.clearRect(0, 0, width, height);
  return {width, height};
}

connect();
