// Tells the page what stands in the chat input while it is typed, so that the gate meter can follow.
// The input is Streamlit's own; this only listens to it.
const PAUSE_MILLISECONDS = 250;

export default function ({ setStateValue }) {
  let pause = 0;
  let told = null;
  const listen = (event) => {
    if (event.target?.dataset?.testid !== "stChatInputTextArea") return;
    const text = event.target.value;
    clearTimeout(pause);
    pause = setTimeout(() => {
      if (text !== told) setStateValue("text", (told = text));
    }, PAUSE_MILLISECONDS);
  };
  document.addEventListener("input", listen);
  return () => {
    clearTimeout(pause);
    document.removeEventListener("input", listen);
  };
}
