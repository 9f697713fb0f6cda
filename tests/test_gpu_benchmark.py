"""The GPU's benchmark runs from beginning to end where there is no GPU, on a tiny shape."""

import json
import sys

import pytest
import torch

from benchmarks import gpu


def test_the_tiny_shape_runs_through_all_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny"])
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setattr(gpu, "matrix_peak", lambda _device: 1e9)
    gpu.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["sweep_rows"] == gpu.TINY.swept * len(gpu.STRENGTHS)
    rates = ["capture_prompts_per_second", "effects_prompts_per_second", "sweep_answers_per_second", "two_lanes_to_one"]
    assert all(report[name] > 0 for name in rates)


def test_when_the_minutes_are_over_the_rest_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--minutes", "-1"])
    monkeypatch.setattr(gpu, "matrix_peak", lambda _device: 1e9)
    gpu.main()
    assert capsys.readouterr().out.count("left out, the minutes are over") == 4


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert "no CUDA device" in capsys.readouterr().out
