/* Joins the controls of an interactive figure to plotly's drawing of it. Its text has the colour of the page's text. */
const drawFigure = async (element) => {
  const { data, layout } = JSON.parse(element.querySelector("script").textContent);
  const { updatemenus = [], sliders = [], height, margin, ...rest } = layout;
  const choices = [...updatemenus.flatMap((menu) => menu.buttons), ...sliders.flatMap((slider) => slider.steps)];
  const plot = element.querySelector(".plot");
  const colour = () => getComputedStyle(element).color;
  const own = { showlegend: false, paper_bgcolor: "transparent", plot_bgcolor: "transparent" };
  own.margin = { ...margin, t: 10 }; // no menu there
  const font = { ...rest.font, color: colour() };
  await Plotly.newPlot(plot, data, { ...rest, ...own, font }, { displayModeBar: false, responsive: true });

  const control = element.querySelector("select, input[type=range]");
  const boxes = [...element.querySelectorAll("input[type=checkbox]")];
  control.addEventListener("input", async () => {
    const choice = choices[control.selectedIndex ?? control.value];
    await Plotly.update(plot, ...choice.args);
    if (control.type === "range") {
      element.querySelector("output").textContent = choice.label;
      control.setAttribute("aria-valuetext", choice.label);
    }
    for (const box of boxes) {
      const line = plot.data.find((trace) => trace.legendgroup === box.value && trace.showlegend !== false);
      box.parentElement.querySelector("span").textContent = line.name;
    }
  });
  for (const box of boxes) {
    box.addEventListener("change", () => {
      const lines = plot.data.flatMap((trace, index) => (trace.legendgroup === box.value ? [index] : []));
      Plotly.restyle(plot, { visible: box.checked ? true : "legendonly" }, lines);
    });
  }
  const recolour = () => Plotly.relayout(plot, { "font.color": colour() });
  new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme"] });
};

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".interactive").forEach(drawFigure));
