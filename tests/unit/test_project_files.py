"""What contributors' tools read: the pre-commit hooks, the CI workflow and the packaging settings agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def setup_text(repo: Path) -> str:
    """The text of setup.py."""
    return (repo / "setup.py").read_text()


@pytest.fixture(scope="module")
def hooks(repo: Path) -> list[dict[str, Any]]:
    """The hooks of .pre-commit-config.yaml."""
    config = yaml.safe_load((repo / ".pre-commit-config.yaml").read_text())
    assert [source["repo"] for source in config["repos"]] == ["local"], "a remote hook brings a version of its own"
    return list(config["repos"][0]["hooks"])


def test_hooks_run_the_tools_of_the_dev_extra(hooks: list[dict[str, Any]], setup_text: str) -> None:
    """A hook that installs its own ruff or mypy would disagree with `make lint` sooner or later."""
    dev = setup_text[setup_text.index("DEV = [") :]
    for hook in hooks:
        assert hook["language"] == "system", hook["id"]
        tool = re.match(r"\.venv/bin/python -m ([a-z]+)", hook["entry"])
        assert tool is not None, hook["entry"]
        assert f'"{tool[1]}>=' in dev, f"{tool[1]} is not in the extra `dev` of setup.py"


def test_hooks_check_what_make_checks(repo: Path, hooks: list[dict[str, Any]]) -> None:
    makefile = (repo / "Makefile").read_text()
    asked = {" ".join(hook["entry"].split()[2:]).removesuffix(" --force-exclude") for hook in hooks}
    made = set(re.findall(r"\$\(PY\) -m ((?:ruff (?:check|format)|mypy))", makefile))
    assert asked == made


def test_the_workflow_runs_the_whole_check_on_each_supported_python(repo: Path, setup_text: str) -> None:
    workflow = yaml.safe_load((repo / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["check"]
    first, end = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', setup_text).groups()  # type: ignore[union-attr]
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(first), int(end))]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (repo / ".ci" / "run").stat().st_mode & 0o111


def test_the_oldest_supported_python_is_the_one_that_the_tools_check_for(repo: Path, setup_text: str) -> None:
    pyproject = (repo / "pyproject.toml").read_text()
    oldest = re.search(r'python_requires=">=(3\.\d+)', setup_text)
    assert oldest is not None
    assert f'python_version = "{oldest[1]}"' in pyproject
    assert f'target-version = "py{oldest[1].replace(".", "")}"' in pyproject


def test_source_distributions_hold_what_the_documents_link_to(repo: Path) -> None:
    manifest = (repo / "MANIFEST.in").read_text()
    for name in ("CONTRIBUTING.md", "SECURITY.md", "recursive-include docs *.md", "recursive-include sim *.py"):
        assert name in manifest
