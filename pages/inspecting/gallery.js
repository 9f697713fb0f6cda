// Small multiples of a circuit's neurons. Each is a button that opens the neuron's card.
const SVG = "http://www.w3.org/2000/svg";

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const drawn = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
};

const histogram = ({ positive, negative, zero }, { width, height, colours }) => {
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  [["negative", negative], ["positive", positive]].forEach(([set, d]) => {
    svg.append(drawn("path", { d, fill: colours[set], "fill-opacity": 0.5, stroke: colours[set], "vector-effect": "non-scaling-stroke" }));
  });
  if (zero !== null) {
    svg.append(drawn("line", { x1: zero, x2: zero, y1: 0, y2: height, stroke: "currentColor", "stroke-opacity": 0.35, "stroke-dasharray": "2 2", "vector-effect": "non-scaling-stroke" }));
  }
  return svg;
};

export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".gallery");
  const had = [...box.children].findIndex((button) => button.matches(":focus"));
  const buttons = data.neurons.map((neuron, place) => {
    const button = element("button");
    button.type = "button";
    button.dataset.place = place;
    button.setAttribute("aria-pressed", neuron.picked);
    button.setAttribute("aria-label", neuron.label);
    const name = element("div", "name");
    name.append(element("span", "", neuron.name), element("span", "", neuron.rank));
    const writes = element("div", "writes");
    neuron.tokens.forEach((token) => writes.append(element("code", "", token)));
    button.append(name, element("div", "number", neuron.number), histogram(neuron, data), writes);
    return button;
  });
  box.replaceChildren(...buttons);
  if (had >= 0) buttons[had]?.focus({ preventScroll: true });

  const clicked = (event) => {
    const button = event.target.closest("button[data-place]");
    if (button) setTriggerValue("pick", +button.dataset.place);
  };
  box.addEventListener("click", clicked);
  return () => box.removeEventListener("click", clicked);
}
