"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = ["#2f6fde", "#d9622b", "#2f9e5b", "#8a4fc7", "#b8860b"];

  function chart(box, { title, about, names }) {
    const card = box.appendChild(document.createElement("section"));
    card.className = "card";
    card.appendChild(document.createElement("h3")).textContent = title;
    const points = names.map(name => data.values[name].map((y, i) => ({ x: data.steps[i], y })));
    const positive = points.every(line => line.every(p => p.y === null || p.y > 0));
    const note = card.appendChild(document.createElement("p"));
    const drawn = new Chart(card.appendChild(document.createElement("div")).appendChild(document.createElement("canvas")), {
      type: "line",
      data: {
        datasets: names.map((name, i) => ({
          label: data.labels[name] || name, data: points[i], parsing: false, spanGaps: true, borderWidth: 1.5,
          borderColor: palette[i % palette.length], backgroundColor: palette[i % palette.length],
          pointRadius: data.steps.length < 3 ? 3 : 0, pointHitRadius: 8,
        })),
      },
      options: {
        animation: false, maintainAspectRatio: false, color: colour("--text"),
        interaction: { mode: "index", intersect: false, axis: "x" },
        plugins: {
          legend: { display: names.length > 1, labels: { boxWidth: 12 } },
          tooltip: { callbacks: { title: items => `update ${items[0].parsed.x.toLocaleString()}` } },
        },
        scales: {
          x: { type: "linear", title: { display: true, text: "update", color: colour("--quiet") },
               ticks: { color: colour("--quiet"), maxTicksLimit: 8 }, grid: { color: colour("--line") } },
          y: { type: "linear", ticks: { color: colour("--quiet"), maxTicksLimit: 7 }, grid: { color: colour("--line") } },
        },
      },
    });
    if (positive) {
      const label = document.createElement("label"), check = label.appendChild(document.createElement("input"));
      check.type = "checkbox";
      label.append(" logarithmic");
      check.addEventListener("change", () => {
        drawn.options.scales.y.type = check.checked ? "logarithmic" : "linear";
        drawn.update();
      });
      note.append(label);
    }
    note.append(about);
  }

  const charts = document.getElementById("charts"), others = document.getElementById("others");
  data.charts.forEach(each => chart(charts, each));
  if (!data.charts.length) charts.textContent = "There is no line of metrics.jsonl yet.";
  if (data.others.length) {
    others.addEventListener("toggle", () => data.others.forEach(each => chart(others.lastElementChild, each)), { once: true });
  } else {
    others.remove();
  }

  const slider = document.getElementById("slider");
  if (slider) {
    const image = document.getElementById("grid"), label = document.getElementById("update");
    const captions = document.getElementById("captions");
    const show = () => {
      const [step, address] = data.grids[slider.value];
      image.src = address;
      image.alt = `sample grid of update ${step}`;
      label.textContent = `update ${step.toLocaleString()}`;
      const texts = data.captions[data.captions_of[slider.value]];
      captions.hidden = !texts.length;
      captions.lastElementChild.replaceChildren(...texts.map(text => {
        const line = document.createElement("li");
        line.textContent = text;
        return line;
      }));
    };
    slider.addEventListener("input", show);
    slider.value = data.grids.length - 1;
    show();
  }
})();
