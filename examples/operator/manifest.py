"""From a sample to the resource that carries it to its job: a template, filled in. Resources are plain dicts.

The name of a job follows from its study, trial and attempt, and nothing else. A cluster refuses a second resource of
the same name: that, and no bookkeeping of the operator's, is why no attempt ever gets two jobs.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GROUP = "hpopt.example.com"
"""Prefix of labels and annotations, and group of the custom resource: put a domain of yours here."""
STUDY, STUDY_UID, TRIAL, ATTEMPT = (f"{GROUP}/{name}" for name in ("study", "study-uid", "trial", "attempt"))
CONFIG = f"{GROUP}/config"
"""The annotation that holds the config as JSON: an operator finds it there again, whatever the template is."""
LONGEST = 63
"""Characters of a label, and of the name of a Job."""

Manifest = dict[str, Any]
Config = Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file. Raises ValueError that says what is wrong with the file."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if path.suffix == ".json" else _from_yaml(text, path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: it holds a {type(found).__name__}, not one mapping")  # noqa: TRY004 - a file's fault
    return found


def load_template(path: Path) -> Manifest:
    """A resource to be filled in. Raises ValueError when nothing could be made of it."""
    template = load(path)
    for field in ("apiVersion", "kind"):
        if not isinstance(template.get(field), str):
            raise ValueError(f"{path}: {field}={template.get(field)!r}: say in a string what it is")  # noqa: TRY004
    metadata = template.get("metadata", {})
    if not isinstance(metadata, dict) or {"name", "generateName"} & metadata.keys():
        raise ValueError(f"{path}: leave name and generateName out of metadata: the name follows from the trial")
    if "{{config}}" not in json.dumps(template):
        raise ValueError(f'{path}: it carries no config: write "{{{{config}}}}" where the trainer looks for it')
    return template


def name_of(config: Config) -> str:
    """The name of the job of one attempt of one trial: letters of a DNS label, 63 at most."""
    identity = config["hpopt"]
    return _name(identity, f"{int(identity['trial'])}-{int(identity['attempt'])}")


def study_labels(identity: Mapping[str, Any]) -> dict[str, str]:
    """The labels of everything that belongs to one study; the uid tells it from an earlier one of the same name."""
    return {STUDY: str(identity["study"])[:LONGEST].strip("-_."), STUDY_UID: identity["uid"]}


def filled(template: Manifest, config: Config) -> Manifest:
    """The resource that carries the config: `{{config}}`, `{{name}}`, `{{trial}}`, ... replaced in every string."""
    identity = config["hpopt"]
    trial, attempt = str(int(identity["trial"])), str(int(identity["attempt"]))
    name, text, labels = name_of(config), as_text(config), study_labels(identity)
    values = {"config": text, "name": name, "trial": trial, "attempt": attempt, "study": labels[STUDY]}
    manifest: Manifest = _replaced(template, values)
    metadata = manifest.setdefault("metadata", {})
    metadata["name"] = name
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels, TRIAL: trial, ATTEMPT: attempt}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), CONFIG: text}
    return manifest


def best_config(identity: Mapping[str, Any], trials: int, best: Mapping[str, Any], template: Manifest) -> Manifest:
    """A ConfigMap with the best hyper-parameters of a study that has ended, in the namespace of its jobs.

    `trials` is part of its name: a study that goes on with more of them ends with another result.
    """
    name = _name(identity, f"best-{trials}")
    metadata = {"name": name, "labels": study_labels(identity)}
    if "namespace" in template.get("metadata", {}):
        metadata["namespace"] = template["metadata"]["namespace"]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"best.json": as_text(best)}}


def as_text(value: Mapping[str, Any]) -> str:
    """JSON without `$`, which Kubernetes expands in the environment and the arguments of a container."""
    return json.dumps(value).replace("$", r"\u0024")


def config_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The config that a filled-in resource carries. Raises ValueError when it carries none."""
    metadata = manifest.get("metadata", {})
    try:
        config = json.loads((metadata.get("annotations") or {})[CONFIG])
        if name_of(config) == metadata.get("name"):
            return dict(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{metadata.get('name')}: the annotation {CONFIG} holds no config ({error!r})") from None
    raise ValueError(f"{metadata.get('name')}: the annotation {CONFIG} holds the config of {name_of(config)}")


def _name(identity: Mapping[str, Any], ending: str) -> str:
    ending = f"-{identity['uid']}-{ending}"
    study = re.sub(r"[^a-z0-9]+", "-", str(identity["study"]).lower())[: LONGEST - len(ending)].strip("-")
    return f"{study or 'study'}{ending}"


def _replaced(value: Any, values: Mapping[str, str]) -> Any:
    """A copy of any JSON value with the placeholders replaced in its strings; keys are left as they are."""
    if isinstance(value, dict):
        return {key: _replaced(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, values) for each in value]
    if isinstance(value, str):
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values.get(found[1], found[0]), value)
    return value


def _from_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError(f"YAML needs `pip install pyyaml`; or write {path.stem}.json") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
