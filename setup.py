"""Packaging of tradebot; the settings of the development tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# The one home of the version; read as text, because importing the package here would need its dependencies.
VERSION = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "tradebot" / "__init__.py").read_text(), re.MULTILINE)
if VERSION is None:
    raise SystemExit('tradebot/__init__.py: no line like __version__ = "1.2.3"')

# Upper bounds where the next major version may change what is used here (of 0.x: 1.0). docs/reference/dependencies.md
# says what each is for, and etc/requirements/ which versions `make install` takes.
RUN = [
    "docopt>=0.6.2,<1",
    "loguru>=0.7.2,<1",
    "msgspec>=0.21,<1",
    "peewee>=3.17.9,<5",
    "pyzmq>=26.2,<28",
    "tqdm>=4.66.3,<5",
    "websocket-client>=1.8,!=1.9.1,<2",
    "websockets>=17.3,<18",
    "zstandard>=0.23,<1",
]
METRICS = ["prometheus-client>=0.21,<1"]
# setuptools, because one test builds the wheel; without a bound, as it has several major versions a year.
TEST = [
    *METRICS, "coverage>=7.6,<8", "freezegun>=1.5.1,<2", "hypothesis>=6.100,<7", "pytest>=8.3,<10",
    "pytest-timeout>=2.3.1,<3", "pyyaml>=6,<7", "setuptools>=70.1", "trustme>=1.2,<2",
]  # fmt: skip
DEV = [
    *TEST, "mypy>=1.13,<3", "ruff>=0.8,<1", "types-docopt>=0.6.11,<1", "types-PyYAML>=6,<7", "types-tqdm>=4.66,<5",
]  # fmt: skip


def shared_files(*folders: str) -> list[tuple[str, list[str]]]:
    """What people look at or copy (example configurations, units, the recorded session), laid out as in a checkout."""
    return [
        (f"share/tradebot/{folder}", sorted(str(p.relative_to(ROOT)) for p in (ROOT / folder).iterdir() if p.is_file()))
        for folder in folders
        if (ROOT / folder).is_dir()
    ]


setup(
    name="tradebot",
    version=VERSION[1],
    description="Watches market ticks, records the orders it would have sent, and can prove what it did",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="tradebot developers",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    # Not sim: the simulator is for development, from a checkout, and its name is too common for site-packages.
    packages=find_packages(include=["tradebot", "tradebot.*", "mockws_server", "mockws_server.*"]),
    package_data={"tradebot": ["py.typed"], "mockws_server": ["py.typed", "scenarios/*.toml"]},
    data_files=shared_files(
        "etc/tradebot",
        "etc/systemd",
        "etc/systemd/tradebot.service.d",
        "etc/prometheus",
        "etc/grafana",
        "etc/requirements",
        "fixtures",
    ),
    install_requires=RUN,
    extras_require={"metrics": METRICS, "test": TEST, "dev": DEV, "bench": []},
    entry_points={
        "console_scripts": ["tradebot = tradebot.cli.startup:tradebot", "mockws = mockws_server.startup:mockws"]
    },
    zip_safe=False,
)
