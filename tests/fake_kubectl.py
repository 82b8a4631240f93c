"""A stand-in for kubectl that keeps resources in a folder, and says what kubectl 1.32 says with an API server.

    python fake_kubectl.py FOLDER create -f -
    python fake_kubectl.py FOLDER get TYPE.VERSION.GROUP -l KEY=VALUE -o json [--namespace NAME]
    python fake_kubectl.py FOLDER delete TYPE.VERSION.GROUP NAME --ignore-not-found --wait=false [--namespace NAME]

A file called `outage` in the folder makes it fail as if there were no API server.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def type_of(resource: dict[str, Any]) -> str:
    """The type as the command line has it."""
    group, _, version = resource["apiVersion"].rpartition("/")
    return ".".join(filter(None, (resource["kind"].lower(), version, group)))


def fail(text: str) -> None:
    """The exit status of kubectl is 1 whatever went wrong."""
    sys.exit(text)


def create(folder: Path) -> None:
    """Creates what stands on standard input, unless the name is taken."""
    resource = json.load(sys.stdin)
    kind, name = type_of(resource), resource["metadata"]["name"]
    space = resource["metadata"].setdefault("namespace", "default")
    group = ".".join(part for part in kind.split(".") if part != resource["apiVersion"].rpartition("/")[2])
    new = folder / f".new-{os.getpid()}"
    new.write_text(json.dumps(resource))
    try:
        os.link(new, folder / f"{kind} {space} {name}")
    except FileExistsError:
        plural = group.replace(".", "s.", 1) if "." in group else f"{group}s"
        fail(f'Error from server (AlreadyExists): error when creating "STDIN": {plural} "{name}" already exists')
    finally:
        new.unlink()
    sys.stdout.write(f"{group}/{name} created\n")


def get(folder: Path, kind: str, selector: str, space: str) -> None:
    """Lists what has the label."""
    label, _, value = selector.partition("=")
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind} {space} *"))]
    items = [each for each in found if each["metadata"].get("labels", {}).get(label) == value]
    json.dump({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}, sys.stdout)


def main() -> None:
    """One command."""
    folder, command, *arguments = Path(sys.argv[1]), *sys.argv[2:]
    if (folder / "outage").exists():
        fail("The connection to the server localhost:8080 was refused - did you specify the right host or port?")
    space = arguments[-1] if "--namespace" in arguments else "default"
    if command == "create" and arguments == ["-f", "-"]:
        create(folder)
    elif command == "get" and arguments[1] == "-l" and arguments[3:5] == ["-o", "json"]:
        get(folder, arguments[0], arguments[2], space)
    elif command == "delete" and arguments[2:4] == ["--ignore-not-found", "--wait=false"]:
        (folder / f"{arguments[0]} {space} {arguments[1]}").unlink(missing_ok=True)
    else:
        fail(f"error: unknown command {sys.argv[2:]}")


if __name__ == "__main__":
    main()
