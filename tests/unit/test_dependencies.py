"""The table of dependencies is held to setup.py and to what the installed packages say of themselves."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tradebot.ops.doctor.checks import LIBRARIES, check_libraries

REPO = Path(__file__).resolve().parents[2]
TABLE = REPO / "docs" / "reference" / "dependencies.md"
# What may be without an upper bound, as its comment in setup.py says.
UNBOUND = {"setuptools"}
# How licences were named before there were SPDX expressions in the metadata.
OLDER_NAMES = {"Apache Software License": "Apache-2.0", "MIT License": "MIT"}


@pytest.fixture(scope="module")
def asked() -> dict[str, tuple[str, str]]:
    """By package: its version bounds, and which extra it is first asked for by."""
    lists: dict[str, Any] = {}
    text = (REPO / "setup.py").read_text()
    code = text[text.index("RUN = [") : text.index("def shared_files")]
    exec(code, lists)
    found: dict[str, tuple[str, str]] = {}
    for extra in ("run", "metrics", "test", "dev"):
        for requirement in lists[extra.upper()]:
            match = re.fullmatch(r"([A-Za-z-]+)(.*)", requirement)
            assert match is not None, requirement
            found.setdefault(match[1], (match[2], extra))
    return found


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, str]]:
    """By package, as the table has it: licence and extra."""
    rows = [line.strip("|\n ").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    return {name: (licence, extra) for name, _use, licence, extra in rows}


def stated_licence(package: str) -> str | None:
    """The licence as the installed package names it; by its text where the metadata says nothing."""
    of = metadata.distribution(package)
    for field in ("License-Expression", "License"):
        if field in of.metadata:
            return str(of.metadata[field])
    for classifier in of.metadata.get_all("Classifier", []):
        name = classifier.rpartition(" :: ")[2]
        if classifier.startswith("License") and name in OLDER_NAMES:
            return OLDER_NAMES[name]
    for file in of.files or ():
        if "LICENSE" in file.name.upper() and "Permission is hereby granted, free of charge" in file.read_text():
            return "MIT"
    return None


def test_the_table_names_what_setup_asks_for(
    asked: dict[str, tuple[str, str]], told: dict[str, tuple[str, str]]
) -> None:
    assert {name: extra for name, (_bounds, extra) in asked.items()} == {
        name: extra for name, (_licence, extra) in told.items()
    }


def test_every_package_has_both_bounds(asked: dict[str, tuple[str, str]]) -> None:
    """A new major version must not come by itself with the next installation."""
    for name, (bounds, _extra) in asked.items():
        assert ">=" in bounds, name
        assert ",<" in bounds or name in UNBOUND, name


def test_the_licences_are_those_of_the_packages(told: dict[str, tuple[str, str]]) -> None:
    checked = 0
    for name, (licence, _extra) in told.items():
        try:
            stated = stated_licence(name)
        except metadata.PackageNotFoundError:
            continue  # an environment without the extra that asks for it
        assert stated == licence, name
        checked += 1
    assert checked >= 9


def test_installed_versions_are_within_the_bounds(asked: dict[str, tuple[str, str]]) -> None:
    def parts(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", version)[:3])

    for name, (bounds, _extra) in asked.items():
        try:
            version = parts(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
        for relation, bound in re.findall(r"(>=|<|!=)([\d.]+)", bounds):
            fits = {">=": version >= parts(bound), "<": version < parts(bound), "!=": version != parts(bound)}
            assert fits[relation], f"{name} {version} {relation}{bound}"


def test_the_doctor_names_the_versions_of_all_that_a_run_needs(asked: dict[str, tuple[str, str]]) -> None:
    assert set(LIBRARIES) == {name for name, (_bounds, extra) in asked.items() if extra in ("run", "metrics")}
    finding = check_libraries({"docopt": "0.6.2", "prometheus-client": None})
    assert (finding.level, finding.text) == ("ok", "docopt 0.6.2, prometheus-client not installed")
