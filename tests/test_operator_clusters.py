import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from examples.operator import kubectl_cluster
from examples.operator.cluster import AlreadyExists, Cluster, ClusterError, Phase, job_of
from examples.operator.directory_cluster import DirectoryCluster
from examples.operator.kubectl_cluster import KubectlCluster
from examples.operator.manifest import CONFIG, GROUP, config_of, filled, load, load_template, name_of, study_labels
from tests.server import ROOT

MANIFESTS = ROOT / "examples" / "operator" / "manifests"
TRIAL, JOB = load_template(MANIFESTS / "trial.json"), load_template(MANIFESTS / "job.yaml")
UID = "0123456789abcdef"


def config(trial: int = 3, attempt: int = 1, study: str = "My_study", **params: Any) -> dict[str, Any]:
    """What an operator may be handed."""
    identity = {"study": study, "uid": UID, "trial": trial, "attempt": attempt, "url": None}
    return {**params, "params": params, "trial_id": trial, "attempt": attempt, "hpopt": identity}


# --- a resource from a sample


def test_a_template_is_filled_in() -> None:
    """The config comes where the template wants it, with name and labels; the template is left as it is."""
    its, before = config(lr=1.0, opt="$(HOME) $$"), json.dumps(JOB)
    manifest = filled(JOB, its)
    assert manifest["metadata"]["name"] == "my-study-0123456789abcdef-3-1"
    assert manifest["metadata"]["labels"] == {
        f"{GROUP}/study": "My_study", f"{GROUP}/study-uid": UID, f"{GROUP}/trial": "3", f"{GROUP}/attempt": "1",
    }  # fmt: skip
    pod = manifest["spec"]["template"]
    text = pod["spec"]["containers"][0]["env"][0]["value"]
    assert json.loads(text) == config_of(manifest) == its
    assert "$" not in text  # nothing that Kubernetes would expand
    assert '"lr": 1.0' in text
    assert pod["metadata"]["labels"] == {f"{GROUP}/study": "My_study", f"{GROUP}/trial": "3"}
    assert json.dumps(JOB) == before
    assert json.loads(filled(TRIAL, its)["spec"]["hpoConfig"]) == its


@pytest.mark.parametrize("study", ["a", "_._", "X" * 64, "My.Study_-" * 6, "9" * 40])
@pytest.mark.parametrize("trial", [0, 999_999])
def test_names_and_labels_are_what_kubernetes_accepts(study: str, trial: int) -> None:
    """Whatever a study is called: at most 63 characters, and none that is not allowed."""
    name, labels = name_of(config(trial, 21, study)), study_labels({"study": study, "uid": UID})
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert name.endswith(f"-{UID}-{trial}-21")
    assert all(re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value) for value in labels.values())


def test_numbers_that_json_tools_have_made_floats() -> None:
    """3.0 is the trial 3."""
    assert name_of({"hpopt": {"study": "s", "uid": UID, "trial": 3.0, "attempt": 1.0}}) == f"s-{UID}-3-1"


@pytest.mark.parametrize(
    ("annotations", "what"),
    [(None, "holds no config"), ({}, "holds no config"), ({CONFIG: "{"}, "holds no config"),
     ({CONFIG: "{}"}, "holds no config"), ({CONFIG: json.dumps(config(4))}, "holds the config of my-study-.*-4-1")],
)  # fmt: skip
def test_a_resource_that_is_not_the_operators(
    annotations: Any, what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone, with a warning, though it bears the labels."""
    manifest = filled(TRIAL, config())
    manifest["metadata"]["annotations"] = annotations
    with pytest.raises(ValueError, match=what):
        job_of(manifest)
    cluster = DirectoryCluster(tmp_path, TRIAL)
    cluster.create(manifest)
    assert cluster.jobs(UID) == []
    assert re.search(f"not a job of this operator's: .*{what}", caplog.text)


def test_how_far_jobs_of_kubernetes_are() -> None:
    """Conditions of a Job, the phase of anything else."""
    manifest = filled(JOB, config())
    stop = {"type": "FailureTarget", "status": "True"}
    for status, phase, reason in [
        (None, Phase.ACTIVE, ""),
        ({"active": 1}, Phase.ACTIVE, ""),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, Phase.ACTIVE, ""),
        ({"conditions": [{"type": "Complete", "status": "False"}]}, Phase.ACTIVE, ""),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, Phase.SUCCEEDED, ""),
        ({"conditions": [stop, {"type": "Failed", "status": "True", "message": "m"}]}, Phase.FAILED, "m"),
        ({"conditions": [{"type": "Failed", "status": "True", "reason": "r"}]}, Phase.FAILED, "r"),
        ({"phase": "Running"}, Phase.ACTIVE, ""),
        ({"phase": "Failed", "message": "m"}, Phase.FAILED, "m"),
        ({"phase": "Succeeded"}, Phase.SUCCEEDED, ""),
    ]:
        job = job_of({**manifest, "status": status})
        assert (job.phase, job.reason, job.config) == (phase, reason, config())


# --- clusters


@pytest.fixture(params=["directory", "kubectl"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    """Each of the two."""
    if request.param == "directory":
        return DirectoryCluster(tmp_path, TRIAL)
    return kubectl(tmp_path, TRIAL)


def kubectl(folder: Path, template: dict[str, Any]) -> KubectlCluster:
    """A cluster behind a stand-in for kubectl."""
    return KubectlCluster(template, (sys.executable, str(ROOT / "tests" / "fake_kubectl.py"), str(folder)))


def test_a_cluster_creates_each_name_once(cluster: Cluster) -> None:
    """Of any number of callers at the same time one wins, and the others hear that it exists."""
    manifest = filled(TRIAL, config())
    outcomes: list[str] = []

    def create() -> None:
        try:
            cluster.create(manifest)
            outcomes.append("created")
        except AlreadyExists:
            outcomes.append("exists")

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["created"] + ["exists"] * 5
    assert [(job.name, job.config, job.phase) for job in cluster.jobs(UID)] == [
        (name_of(config()), config(), Phase.ACTIVE)
    ]


def test_a_cluster_lists_and_deletes(cluster: Cluster) -> None:
    """Only what belongs to the study; deleting twice does no harm."""
    for trial in range(2):
        cluster.create(filled(TRIAL, config(trial)))
    other = config()
    other["hpopt"]["uid"] = "f" * 16
    cluster.create(filled(TRIAL, other))
    for _ in range(2):
        cluster.delete(name_of(config(0)))
    assert [job.name for job in cluster.jobs(UID)] == [name_of(config(1))]


def test_kubectl_with_a_namespace(tmp_path: Path) -> None:
    """That of the template, for every command."""
    cluster = kubectl(tmp_path, JOB)
    assert cluster.type == "job.v1.batch"
    cluster.create(filled(JOB, config()))
    assert [job.name for job in cluster.jobs(UID)] == [name_of(config())]
    cluster.delete(name_of(config()))
    assert cluster.jobs(UID) == []


def test_kubectl_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are passed on: an outage, no kubectl, no answer, an answer that is none."""
    cluster = kubectl(tmp_path, TRIAL)
    (tmp_path / "outage").touch()
    manifest = filled(TRIAL, config())
    for call in (lambda: cluster.create(manifest), lambda: cluster.jobs(UID), lambda: cluster.delete("a")):
        with pytest.raises(ClusterError, match=r"kubectl (create|get|delete): The connection to the server .* refused"):
            call()
    for command, what in [
        ("no-such-kubectl", "no-such-kubectl: No such file or directory: is kubectl on the PATH?"),
        ("echo", "kubectl get: Expecting value"),
        ("false", "kubectl get: exit status 1"),
    ]:
        with pytest.raises(ClusterError, match=re.escape(what)):
            KubectlCluster(TRIAL, (command,)).jobs(UID)
    monkeypatch.setattr(kubectl_cluster, "TIMEOUT", 0.1)
    with pytest.raises(ClusterError, match=r"kubectl create: no answer within 0\.1 s"):
        KubectlCluster(TRIAL, ("sh", "-c", "sleep 60")).create(filled(TRIAL, config()))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Is an error of the cluster's."""
    cluster = DirectoryCluster(tmp_path / "cluster", TRIAL)
    cluster.jobs_folder.rmdir()
    cluster.jobs_folder.touch()
    with pytest.raises(ClusterError, match="File exists"):
        cluster.create(filled(TRIAL, config()))


# --- the manifests


def test_the_manifests_fit_together() -> None:
    """The custom resource is the one that is defined, and the operator may do with it and with jobs what it does."""
    import yaml

    crd = load(MANIFESTS / "crd.yaml")
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    assert crd["metadata"]["name"] == f"{names['plural']}.{crd['spec']['group']}"
    assert (TRIAL["kind"], TRIAL["apiVersion"]) == (names["kind"], f"{crd['spec']['group']}/{version['name']}")
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    assert properties["spec"]["properties"].keys() == TRIAL["spec"].keys()
    assert properties["status"]["properties"].keys() == {"phase", "message"}
    account, role, binding = yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text())
    allowed = {(group, kind): rule["verbs"] for rule in role["rules"] for group in rule["apiGroups"]
               for kind in rule["resources"]}  # fmt: skip
    does = ["create", "list", "delete"]
    assert allowed == {
        ("batch", "jobs"): does, (GROUP, names["plural"]): does, ("", "configmaps"): ["create"],
    }  # fmt: skip
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in (account, role, binding, JOB)} == {"hpopt"}
