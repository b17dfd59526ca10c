"use strict";
(() => {
  const { points } = JSON.parse(document.getElementById("data").textContent);
  points.forEach((point, index) => { point.index = index; });
  const get = (id) => document.getElementById(id);
  const distinct = (key) => [...new Set(points.map((point) => point[key]))];
  const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"]; // Okabe and Ito's
  const SYMBOLS = { fp32: "circle", fp16: "square", int8: "diamond" };
  const figureOf = (point) => JSON.stringify([point.task, point.metric, point.data]);
  const series = [...new Set(points.map((point) => `${point.backend}, ${point.precision}`))];
  let picked = null;

  // --- what can be chosen ---------------------------------------------------------------------------

  const compared = points.filter((point) => point.value !== null);
  for (const figure of new Set(compared.map(figureOf))) {
    const [task, metric, data] = JSON.parse(figure);
    get("figure").add(new Option(`${task}: ${metric}, ${data}`, figure));
  }
  const choices = { backends: "backend", precisions: "precision", licenses: "license" };
  for (const [id, key] of Object.entries(choices)) {
    for (const value of distinct(key)) {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value, checked: true });
      label.append(box, ` ${value || "not known"}`);
      get(id).append(label);
    }
    get(id).hidden = distinct(key).length < 2;
  }

  const ticked = (id) => new Set([...get(id).querySelectorAll("input:checked")].map((box) => box.value));

  function shown() {
    const [task] = JSON.parse(get("figure").value || "[null]");
    const kept = Object.entries(choices).map(([id, key]) => [key, ticked(id)]);
    return points.filter((point) =>
      (task === null || point.task === task) &&
      kept.every(([key, values]) => values.has(point[key])) &&
      (point.weights !== null || !get("published").checked));
  }

  // --- the chart ------------------------------------------------------------------------------------

  function front(some, x) {
    const kept = [];
    for (const point of [...some].sort((a, b) => a[x] - b[x] || b.value - a.value || a.index - b.index)) {
      if (!kept.length || point.value > kept.at(-1).value) kept.push(point);
    }
    return kept;
  }

  const ticks = [];
  for (let power = -3; power < 13; power += 1) {
    for (const first of [1, 2, 5]) ticks.push(Number(`${first}e${power}`));
  }

  const digits = (value) => Number(value.toPrecision(4)).toString();
  const count = (value) => value >= 1e12 ? `${digits(value / 1e12)}T` :
    value >= 1e9 ? `${digits(value / 1e9)}G` : `${digits(value / 1e6)}M`;
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const latency = (point) => `${digits(point.ms)} ms on ${point.backend}, ${point.precision}` +
    (point.measured ? (point.quiet ? "" : " (on a disturbed machine)") : " (predicted)");
  const accuracy = (point) => point.value === null ? "no quoted accuracy" :
    `${point.value.toFixed(2)} ${point.metric}${point.precision === "fp32" ? "" : ", quoted for fp32"}`;
  const about = (point) => [accuracy(point), latency(point),
    `${count(point.macs)} MACs, ${count(point.params)} parameters, ${point.height}x${point.width}`];

  function draw() {
    const some = shown();
    const drawn = some.filter((point) => point.value !== null && figureOf(point) === get("figure").value);
    const x = document.querySelector("input[name=x]:checked").value;
    const best = front(drawn, x);
    const traces = series.map((name, i) => {
      const own = drawn.filter((point) => `${point.backend}, ${point.precision}` === name);
      return {
        name, type: "scatter", mode: "markers", visible: own.length > 0,
        x: own.map((point) => point[x]), y: own.map((point) => point.value),
        customdata: own.map((point) => point.index),
        text: own.map((point) => [`<b>${escaped(point.name)}</b>`, ...about(point).map(escaped)].join("<br>")),
        hovertemplate: "%{text}<extra></extra>",
        marker: {
          color: COLOURS[i % COLOURS.length], size: own.map((point) => point.index === picked ? 15 : 10),
          symbol: own.map((point) => SYMBOLS[point.precision] + (point.weights === null ? "-open" : "")),
          opacity: own.map((point) => point.measured ? 1 : 0.5), line: { width: 1.5 },
        },
      };
    });
    traces.unshift({
      name: "front", type: "scatter", mode: "lines", hoverinfo: "skip",
      x: best.map((point) => point[x]), y: best.map((point) => point.value),
      line: { shape: "hv", color: "#555", width: 1.5, dash: "dot" },
    });
    const said = best.map((point) => `${point.name} (${accuracy(point)}, ${latency(point)})`).join("; ");
    get("chart").setAttribute("aria-label",
      `A chart of ${drawn.length} points; the table below has the same figures. On the front: ${said || "none"}.`);
    const values = drawn.map((point) => point.value);
    const apart = 0.025 * (Math.max(...values) - Math.min(...values)); // names closer than this would overlap
    const named = [];
    for (const point of [...best].reverse()) {
      if (!named.length || named.at(-1).value - point.value >= apart) named.push(point);
    }
    const annotations = named.map((point) => ({
      x: Math.log10(point[x]), y: point.value, text: escaped(point.name), showarrow: false, xanchor: "right",
      yanchor: "bottom", xshift: -4, yshift: 2, font: { size: 11, color: "#333" },
    }));
    Plotly.react("chart", traces, {
      margin: { l: 60, r: 15, t: 10, b: 55 }, hovermode: "closest", annotations,
      xaxis: { type: "log", title: { text: x === "ms" ? "latency, ms" : "MACs" }, gridcolor: "#e6e6e6",
        tickvals: ticks, ticktext: ticks.map((tick) => x === "ms" ? String(tick) : count(tick)) },
      yaxis: { title: { text: drawn.length ? drawn[0].metric : "" }, gridcolor: "#e6e6e6" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, font: { size: 13 },
      plot_bgcolor: "#fff", paper_bgcolor: "#fff",
    }, { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    const rows = new Set(some.map((point) => point.index));
    const onFront = new Set(best.map((point) => point.index));
    for (const row of get("table").tBodies[0].rows) {
      const index = Number(row.dataset.index);
      row.hidden = !rows.has(index);
      row.classList.toggle("picked", index === picked);
      row.cells[row.cells.length - 1].textContent = onFront.has(index) ? "yes" : "";
    }
    get("shown").textContent = `${rows.size} of ${points.length} figures; the front is that of the figures shown.`;
    points.forEach((point) => { point.front = onFront.has(point.index); });
  }

  // --- what is picked -------------------------------------------------------------------------------

  function pick(index) {
    picked = index;
    const point = points[index];
    const panel = get("picked");
    panel.replaceChildren();
    const line = (...parts) => {
      const paragraph = document.createElement("p");
      paragraph.append(...parts);
      panel.append(paragraph);
    };
    const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
    line(make("strong", point.name), `: ${about(point).join("; ")}`);
    line(point.weights === null ? "no published weights for this figure" : `weights ${point.weights}`,
      `, licence ${point.license || "not known"}`, point.origin ? `; accuracy: ${point.origin}` : "");
    const code = Object.assign(make("code", point.command), { id: "command" });
    const button = Object.assign(make("button", "Copy"), { type: "button", id: "copy" });
    button.addEventListener("click", () => {
      getSelection().selectAllChildren(code); // for copying by hand where a page may not use the clipboard
      navigator.clipboard?.writeText(point.command).then(() => { button.textContent = "Copied"; }, () => {});
    });
    line(code, " ", button);
    draw();
  }

  // --- the table ------------------------------------------------------------------------------------

  function sort(header, key) {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const each of header.parentElement.cells) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = get("table").tBodies[0];
    const of = (row) => points[Number(row.dataset.index)][key];
    const compare = (a, b) => {
      if (a === null || b === null) return (a === null) - (b === null); // unknown values come last
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(of(a), of(b))));
  }

  for (const button of get("table").querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.parentElement, button.dataset.key));
  }
  get("table").tBodies[0].addEventListener("click", (event) => {
    if (event.target.closest(".pick")) pick(Number(event.target.closest("tr").dataset.index));
  });
  get("filters").addEventListener("change", draw);
  get("filters").addEventListener("submit", (event) => event.preventDefault());
  draw();
  get("chart").on("plotly_click", (event) => {
    const point = event.points.find((each) => each.customdata !== undefined);
    if (point) pick(point.customdata);
  });
})();
