"""PSI as the kernel writes it, as older kernels do, and damaged; and that nothing takes it for something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.ops.soak.psi import RESOURCES, Pressure, parse_psi, read_psi

SOME = "some avg10=48.00 avg60=10.50 avg300=2.51 total=519662967"
FULL = "full avg10=0.25 avg60=0.00 avg300=0.11 total=340380420"


def write_psi(root: Path, cpu: float, memory: float = 0.0, io: float = 0.0) -> None:
    """The three files, as a kernel has them."""
    root.mkdir(exist_ok=True)
    for name, value in (("cpu", cpu), ("memory", memory), ("io", io)):
        lines = [f"{kind} avg10={value:.2f} avg60=0.00 avg300=0.00 total=1\n" for kind in ("some", "full")]
        part = root / f"{name}.part"
        part.write_text("".join(lines))
        part.replace(root / name)


def test_raw_lines_and_numbers_of_all_three(tmp_path: Path) -> None:
    for name in RESOURCES:
        (tmp_path / name).write_text(f"{SOME}\n{FULL}\n")
    look = read_psi(tmp_path)
    assert look.problems == ()
    fields = look.pressure.as_fields()
    assert set(fields) == {f"{r}_{k}_{w}" for r in RESOURCES for k in ("some", "full") for w in ("raw", "avg10")}
    for name in RESOURCES:
        assert fields[f"{name}_some_raw"] == SOME and fields[f"{name}_some_avg10"] == 48.0
        assert fields[f"{name}_full_raw"] == FULL and fields[f"{name}_full_avg10"] == 0.25


def test_older_kernels_have_no_full_line_for_cpu(tmp_path: Path) -> None:
    write_psi(tmp_path, 5.0)
    (tmp_path / "cpu").write_text(SOME + "\n")
    look = read_psi(tmp_path)
    assert look.problems == ()
    assert (look.pressure.cpu_some_avg10, look.pressure.cpu_full_raw, look.pressure.cpu_full_avg10) == (
        48.0,
        None,
        None,
    )


def test_missing_files_are_null_and_said(tmp_path: Path) -> None:
    look = read_psi(tmp_path / "none")
    assert look.pressure == Pressure()
    assert [problem.partition(": ")[2] for problem in look.problems] == ["No such file or directory"] * 3
    write_psi(tmp_path, 5.0)
    (tmp_path / "io").unlink()
    (tmp_path / "io").mkdir()
    look = read_psi(tmp_path)
    assert look.pressure.cpu_some_avg10 == 5.0 and look.pressure.io_some_raw is None and len(look.problems) == 1


@pytest.mark.parametrize(
    ("line", "avg10"),
    [
        ("some avg10=0.00 avg60=1", 0.0),
        ("some avg60=1.00 avg10=7.5", 7.5),
        ("some avg10=100.00", 100.0),
        ("some avg10=100.01", None),
        ("some avg10=nan", None),
        ("some avg10=-1.0", None),
        ("some avg10=1e1", None),
        ("some avg10=", None),
        ("some xavg10=3.0", None),
        ("some", None),
    ],
)
def test_a_damaged_line_keeps_its_text_and_gives_no_number(line: str, avg10: float | None) -> None:
    fields, faults = parse_psi("cpu", line + "\n")
    assert (fields["cpu_some_raw"], fields["cpu_some_avg10"]) == (line, avg10)
    assert len(faults) == (avg10 is None)


@pytest.mark.parametrize("text", ["", "\n", "other avg10=1.00\n", "full avg10=1.00\n"])
def test_a_file_without_its_line_is_said(text: str) -> None:
    fields, faults = parse_psi("memory", text)
    assert "memory_some_raw" not in fields
    assert "no line 'some'" in faults


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    fields, faults = parse_psi("io", text)
    for kind in ("some", "full"):
        value = fields.get(f"io_{kind}_avg10")
        assert value is None or 0.0 <= float(value) <= 100.0
    assert faults or fields["io_some_avg10"] is not None


_MISNAMED = re.compile(
    r"cpu[\s_-]*(usage|utili[sz]ation|percent|pct|%)|(usage|utili[sz]ation|percent|%)\s+of\s+(the\s+)?cpu"
    r"|psi[\s_-]*(usage|utili[sz]ation|percent|%)",
    re.I,
)


def test_nobody_takes_pressure_for_usage(repo: Path) -> None:
    """PSI is stall time: no text, field or identifier of the package, its files and documents calls it otherwise."""
    assert _MISNAMED.search("cpu_usage") and _MISNAMED.search("CPU %") and _MISNAMED.search("utilisation of the CPU")
    places = [path for place in ("tradebot", "etc", "docs", "sim", "bench") for path in (repo / place).rglob("*")]
    files = [path for path in (*places, *repo.glob("*.md")) if path.suffix in _TEXTS and path.is_file()]
    assert len(files) > 100
    found = [
        f"{path.relative_to(repo)}: {match[0]}"
        for path in files
        for match in _MISNAMED.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


_TEXTS = {".py", ".md", ".toml", ".service", ".json", ".yml", ".yaml", ".conf"}
