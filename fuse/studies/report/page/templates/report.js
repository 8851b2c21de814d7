/* What the page does beside its charts: their colours in light and dark, rows that are looked for, the clip that is shown. */
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const fields = [...document.querySelectorAll("select[id]")];

  function look() {
    const style = getComputedStyle(document.documentElement);
    const [ink, quiet, line] = ["--ink", "--quiet", "--line"].map((name) => style.getPropertyValue(name).trim());
    const letters = { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
    return {
      background: null,
      font: "system-ui, sans-serif",
      view: { stroke: null },
      axis: { ...letters, domainColor: quiet, tickColor: quiet, gridColor: line, gridOpacity: 0.6 },
      legend: { ...letters },
      text: { fontSize: 11 },
    };
  }

  async function draw() {
    const chosen = fields.map((field) => field.value);
    for (const place of document.querySelectorAll(".chart")) {
      const spec = JSON.parse(place.nextElementSibling.textContent);
      await vegaEmbed(place, spec, { actions: false, renderer: "svg", config: look() });
    }
    // A chart that is drawn puts its fields to where they stood at first.
    fields.forEach((field, place) => {
      field.value = chosen[place];
      field.dispatchEvent(new Event("input"));
    });
    document.documentElement.dataset.drawn = "true";
  }

  for (const field of document.querySelectorAll("input[data-filter]")) {
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of document.querySelectorAll(`#${field.dataset.filter} tbody tr`)) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }

  const clip = document.getElementById("clip");
  clip?.addEventListener("input", () => {
    for (const one of document.querySelectorAll(".clip")) {
      one.hidden = one.dataset.clip !== clip.value;
      if (one.hidden) one.querySelectorAll("audio").forEach((sound) => sound.pause());
    }
  });

  dark.addEventListener("change", draw);
  draw();
})();
