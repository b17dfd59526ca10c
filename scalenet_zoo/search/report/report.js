"use strict";
// Shows an interactive chart in place of each plot's image. Without this script, the images stay.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const settings = {
    displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const { data, layout } = charts[figure.dataset.chart];
    figure.classList.add("live");
    Plotly.newPlot(figure.querySelector(".chart"), data, layout, settings);
  }
})();
