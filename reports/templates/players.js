// Handwriting that is written again, rolls that sound, and a line that runs along with sound.
"use strict";
(() => {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  // Strokes as lists of points, from the path data that the page was drawn with.
  const strokesOf = (svg) => [...svg.querySelectorAll("path")].map((path) => {
    const numbers = path.getAttribute("d").match(/-?\d+/g).map(Number);
    const points = [[numbers[0], numbers[1]]];
    for (let i = 2; i < numbers.length; i += 2) {
      const [x, y] = points[points.length - 1];
      points.push([x + numbers[i], y + numbers[i + 1]]);
    }
    return { path, whole: path.getAttribute("d"), points };
  });

  const writeAgain = (button) => {
    const svg = button.closest("figure").querySelector(".ink");
    const strokes = strokesOf(svg);
    const rate = Number(svg.dataset.rate);
    const speed = document.querySelector(".speed");
    const name = button.textContent;
    let done = 0, before = performance.now(), stopped = false;

    const show = () => {
      let left = Math.floor(done);
      for (const { path, whole, points } of strokes) {
        const count = Math.min(left, points.length);
        left -= count;
        // Those who want no motion see strokes appear whole.
        const partial = calm.matches ? "" : "M" + points.slice(0, count).map((p) => p.join(" ")).join("L");
        path.setAttribute("d", count === points.length ? whole : count ? partial : "");
      }
    };
    const total = strokes.reduce((sum, s) => sum + s.points.length, 0);
    const frame = (now) => {
      if (stopped) return;
      done += ((now - before) / 1000) * rate * Number(speed ? speed.value : 1);
      before = now;
      show();
      done < total ? requestAnimationFrame(frame) : finish();
    };
    const finish = () => {
      stopped = true;
      strokes.forEach(({ path, whole }) => path.setAttribute("d", whole));
      button.textContent = name;
      button.stop = null;
    };
    button.stop = finish;
    button.textContent = "Stop";
    show();
    requestAnimationFrame(frame);
  };

  let context = null;

  const playRoll = (button) => {
    const svg = button.closest("figure").querySelector(".roll");
    const head = svg.querySelector(".head");
    const rate = Number(svg.dataset.rate), top = Number(svg.dataset.top);
    const name = button.textContent;
    context = context || new AudioContext();
    context.resume();
    const out = new GainNode(context, { gain: 0.14 });
    out.connect(context.destination);
    const start = context.currentTime + 0.08;
    const notes = [...svg.querySelectorAll("rect")].map((rect) => {
      const number = (key) => Number(rect.getAttribute(key));
      const from = number("x") / 10 / rate;
      return { rect, from, to: from + (number("width") + 1) / 10 / rate, key: top - number("y") / 10 };
    });
    for (const { from, to, key } of notes) {
      const tone = new OscillatorNode(context, { type: "triangle", frequency: 440 * 2 ** ((key - 69) / 12) });
      const envelope = new GainNode(context, { gain: 0 });
      const at = start + from, end = start + to;
      envelope.gain.setValueAtTime(0, at);
      envelope.gain.linearRampToValueAtTime(1, at + 0.012);
      envelope.gain.setTargetAtTime(0.45, at + 0.02, 0.25);
      envelope.gain.setTargetAtTime(0, end - 0.03, 0.03);
      tone.connect(envelope).connect(out);
      tone.start(at);
      tone.stop(end + 0.2);
    }
    const length = svg.viewBox.baseVal.width / 10 / rate;
    let stopped = false;
    const finish = () => {
      stopped = true;
      out.disconnect();
      head.setAttribute("hidden", "");
      notes.forEach(({ rect }) => rect.classList.remove("on"));
      button.textContent = name;
      button.stop = null;
    };
    const frame = () => {
      if (stopped) return;
      const now = context.currentTime - start;
      if (now > length) return finish();
      if (!calm.matches) head.setAttribute("transform", `translate(${Math.max(now, 0) * rate * 10} 0)`);
      notes.forEach(({ rect, from, to }) => rect.classList.toggle("on", now >= from && now < to));
      requestAnimationFrame(frame);
    };
    if (!calm.matches) head.removeAttribute("hidden");
    button.stop = finish;
    button.textContent = "Stop";
    frame();
  };

  const players = { ink: writeAgain, roll: playRoll };
  const buttons = document.querySelectorAll("button.play");
  for (const button of buttons) {
    button.hidden = false;
    button.addEventListener("click", () => {
      if (button.stop) return button.stop();
      buttons.forEach((other) => other.dataset.player === "roll" && other.stop && other.stop());
      players[button.dataset.player](button);
    });
  }

  const audios = document.querySelectorAll("audio");
  for (const audio of audios) {
    const sound = audio.closest("figure").querySelector(".sound");
    const head = sound.querySelector(".head");
    const follow = () => {
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
      if (!audio.paused && !calm.matches) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", () => {
      audios.forEach((other) => other !== audio && other.pause());
      head.hidden = false;
      follow();
    });
    for (const event of ["timeupdate", "seeked", "ended"]) audio.addEventListener(event, follow);
    sound.addEventListener("click", (event) => {
      const box = sound.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const seek = () => {
        audio.currentTime = share * audio.duration;
        audio.play();
      };
      audio.readyState ? seek() : audio.addEventListener("loadedmetadata", seek, { once: true });
      if (!audio.readyState) audio.load();
    });
  }

  for (const button of document.querySelectorAll("button.copy")) {
    if (!navigator.clipboard) continue; // A file opened from disk may not have it.
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
