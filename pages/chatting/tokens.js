// An answer token by token. Tokens can be clicked; with the keyboard, arrow keys move from token to token, Home and End
// go to the first and the last one, and Enter or Space opens the token's card.
export default function ({ data, parentElement, setTriggerValue }) {
  const box = parentElement.querySelector(".tokens");
  const had = box.contains(parentElement.activeElement ?? document.activeElement) || box.matches(":focus-within");
  box.replaceChildren();
  box.setAttribute("aria-label", data.label);
  box.style.setProperty("--lane", data.lane);
  const spans = [];
  data.tokens.forEach(([text, colour, ink, title], place) => {
    if (!text) return;
    const span = document.createElement("span");
    span.textContent = text;
    span.title = title;
    span.dataset.place = place;
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", `token ${place + 1}: ${title}`);
    if (colour) Object.assign(span.style, { backgroundColor: colour, color: ink });
    if (place === data.parted) span.classList.add("parting");
    if (place < data.begun) span.classList.add("begun");
    if (place < data.thought) span.classList.add("thought");
    if (place === data.picked) {
      span.classList.add("picked");
      span.setAttribute("aria-pressed", "true");
    }
    span.tabIndex = -1;
    spans.push(span);
    box.append(span);
  });
  if (!spans.length) return;
  let here = spans.find((span) => +span.dataset.place === data.picked) ?? spans[0];
  here.tabIndex = 0;
  if (had) here.focus({ preventScroll: true });

  const move = (to) => {
    here.tabIndex = -1;
    here = to;
    here.tabIndex = 0;
    here.focus();
  };
  const pick = () => setTriggerValue("pick", +here.dataset.place);
  const clicked = (event) => {
    const span = event.target.closest("span[data-place]");
    if (!span) return;
    move(span);
    pick();
  };
  const pressed = (event) => {
    const number = spans.indexOf(here);
    const steps = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: spans.length - 1 };
    if (event.key in steps) {
      move(spans[Math.min(Math.max(steps[event.key], 0), spans.length - 1)]);
    } else if (event.key === "Enter" || event.key === " ") {
      pick();
    } else {
      return;
    }
    event.preventDefault();
  };
  box.addEventListener("click", clicked);
  box.addEventListener("keydown", pressed);
  return () => {
    box.removeEventListener("click", clicked);
    box.removeEventListener("keydown", pressed);
  };
}
