"""The time until the map of a 70B model (80 × 29,568 random neurons) appears, and the data sent to the browser.

For each variant it starts a temporary Streamlit script, opens it in Chromium, and measures the time from the script's
first line until the chart is painted, once cold and then warm (median of three reruns). The variants: pooled, as during
recording; as the page shows it at the end (every cell clickable, a circuit of 0.1 % marked); and raw. Prints text; the
last line is JSON. Needs Chromium and playwright.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SCRIPT = """
import json, time
started = time.time()
import sys
sys.path.insert(0, {root!r})
import numpy as np
import plotly.graph_objects as go
import streamlit as st
from cna_core.circuits.attribution import top_neurons
from cna_core.circuits.circuit import Circuit, CircuitPrompts, CircuitSettings
from cna_core.figures.heatmap import neuron_heatmap
from cna_core.figures.neuron_cells import NeuronStatistics
from cna_core.models.layout import ModelIdentity

@st.cache_resource
def statistics_and_circuit():
    model = ModelIdentity(name="random", revision="0", layers=80, neurons_per_layer=29568, dtype="float32")
    layout = model.layout
    values = [np.random.default_rng(seed).standard_normal(layout.total, dtype=np.float32) for seed in range(4)]
    chosen = top_neurons(np.abs(values[0]), layout.total // 1000)
    layers, neurons = layout.locate(chosen)
    of_circuit = [one[chosen] for one in values]
    prompts = CircuitPrompts(positive=1, negative=1, sha256="0" * 64)
    circuit = Circuit(model, CircuitSettings(), prompts, layers, neurons, *of_circuit)
    return NeuronStatistics(layout, *values), circuit

data, circuit = statistics_and_circuit()
started_drawing = time.time() if st.query_params.get("skip_data") else started
variant = {variant!r}
if variant == "raw":
    figure = go.Figure(go.Heatmap(z=data.delta.reshape(80, -1), zmin=-3, zmax=3, colorscale="RdBu"))
else:
    frequency = np.ones(len(circuit), dtype=np.float32)
    marks = dict(circuit=circuit, universal=circuit.flat[:50], selection_frequency=frequency)
    figure = neuron_heatmap(data, clickable_cells=True, **marks) if variant == "clickable" else neuron_heatmap(data)
st.session_state["runs"] = st.session_state.get("runs", 0) + 1
figure.update_layout(meta=st.session_state["runs"])
st.button("again")
st.plotly_chart(figure, key=f"chart-{{st.session_state['runs']}}")
st.html(f"<span id='started' data-at='{{started_drawing}}' data-run='{{st.session_state['runs']}}'></span>")
"""

# Resolves when the chart of run N is in the page and two frames have been painted since.
PAINTED = """run => new Promise(resolve => {
    const look = () => {
        const mark = document.querySelector(`#started[data-run="${run}"]`);
        const chart = document.querySelector('.js-plotly-plot');
        const shown = chart && chart._fullLayout && chart._fullLayout.meta;
        const drawn = chart && chart.querySelector('.heatmaplayer image');
        if (mark && drawn && shown === run)
            requestAnimationFrame(() => requestAnimationFrame(() => resolve(Date.now() / 1000 - mark.dataset.at)));
        else setTimeout(look, 5);
    };
    look();
})"""


def main() -> None:
    """Measure the three variants and print."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        print("This benchmark needs Chromium; install it and run again.")
        sys.exit(2)
    results = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for variant in ("pooled", "clickable", "raw"):
            results[variant] = measure(browser.new_page(viewport={"width": 1280, "height": 720}), variant)
            cold, warm, sent = (results[variant][name] for name in ("cold_seconds", "warm_seconds", "sent_megabytes"))
            print(f"{variant:<10} cold {cold:5.2f} s   warm {warm:5.2f} s   sent {sent:6.2f} MB")
        browser.close()
    print(json.dumps({"benchmark": "heatmap", "cells": "80x29568", "variants": results}))


def measure(page: Page, variant: str) -> dict[str, float]:
    """Serve one variant, open it, rerun it three times; seconds to the painted chart and megabytes of one message."""
    sent: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(len(frame))))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "page.py"
        script.write_text(SCRIPT.format(root=str(Path(__file__).parents[1]), variant=variant), encoding="utf-8")
        server, address = serve(script)
        try:
            page.goto(address)
            page.evaluate(PAINTED, 1)  # makes the random data, imports, and fetches plotly.js
            page.goto(address + "?skip_data=1")  # a new session: nothing is made again but the chart
            cold = float(page.evaluate(PAINTED, 1))
            times = []
            for run in range(2, 5):
                sent.clear()
                page.get_by_role("button", name="again").click()
                times.append(float(page.evaluate(PAINTED, run)))
            megabytes = sum(sent) / 1e6
        finally:
            server.terminate()
            server.wait()
            page.close()
    return {
        "cold_seconds": round(cold, 2),
        "warm_seconds": round(statistics.median(times), 2),
        "sent_megabytes": round(megabytes, 2),
    }


def serve(script: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start Streamlit on a free port and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"server.port": port, "server.address": "127.0.0.1", "server.headless": "true"}
    arguments = [f"--{name}={value}" for name, value in options.items()] + ["--browser.gatherUsageStats=false"]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *arguments]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=script.parent)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
            return server, address
        except OSError:
            time.sleep(0.1)
    server.terminate()
    raise TimeoutError("Streamlit did not start within a minute.")


if __name__ == "__main__":
    main()
