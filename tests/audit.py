"""Known vulnerabilities of the pinned packages: `make audit`.

Asks the vulnerability service through pip-audit, which takes a package that the service does not know for a good one.
Where no answer comes, as behind a mirror of packages alone, that is said, and nothing fails.
"""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
COMMAND = ["--requirement", "requirements.txt", "--disable-pip", "--require-hashes", "--progress-spinner=off"]


def ask():
    """What pip-audit prints, JSON or nothing, and what it complains of."""
    command = [sys.executable, "-m", "pip_audit", *COMMAND, "--format=json", "--timeout=30"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    return done.stdout, done.stderr


def verdict(answer, complaint=""):
    """What an answer comes to.

    Parameters
    ----------
    answer : str
        JSON of pip-audit; empty where it failed.
    complaint : str
        Shown where there is no answer.

    Returns
    -------
    text : str
    vulnerable : bool
    """
    if not answer.strip():
        last = complaint.strip().splitlines()[-1:] or ["no answer"]
        return f"not audited: the vulnerability service did not answer ({last[0][:200]})", False
    packages = json.loads(answer)["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in known
        for found in package["vulns"]
    ]
    if not known:
        return f"not audited: the vulnerability service knows none of {len(packages)} packages; no connection?", False
    lines.append(f"{len(lines)} known vulnerabilities in {len(known)} packages, {len(packages) - len(known)} not known")
    return "\n".join(lines), len(lines) > 1


def main():
    """Print the verdict; exit status 1 where there is a vulnerability."""
    text, vulnerable = verdict(*ask())
    print(text)
    return int(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
