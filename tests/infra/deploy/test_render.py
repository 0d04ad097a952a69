"""What `biovfm deploy render` writes: valid for the tools that will read it, and faithful to the values."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from infra.cli import main
from infra.deploy.render import render
from infra.deploy.values import Values
from shards.errors import ConfigError
from shards.settings import load_yaml, parse

BEGINNING = Path(__file__).parents[3] / "infra" / "deploy" / "values.yaml"
KUBERNETES = "1.32"
PER_PLATFORM = {"compose", "container", "kubernetes", "slurm", "terraform"}


def values(**changes: Any) -> Values:
    return parse(Values, {**load_yaml(BEGINNING), **changes}, where="test")


@pytest.fixture(scope="module", params=["job", "ray"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(str(request.param))
    ingest = {**load_yaml(BEGINNING)["ingest"], "engine": request.param}
    written = render(values(ingest=ingest, kubernetes={"role_arn": "arn:aws:iam::1:role/biovfm-ingest"}), folder)
    assert {path.parts[0] for path in written} == PER_PLATFORM
    assert all((folder / path).is_file() for path in written)
    return folder


def manifests(folder: Path) -> list[dict[str, Any]]:
    paths = [path for path in sorted((folder / "kubernetes").glob("*.yaml")) if path.stem != "kustomization"]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def plain_objects(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The object, or what Kubernetes' own kinds there are inside an object of a custom kind."""
    spec = manifest.get("spec", {})
    name = {"name": "inner"}
    if manifest["kind"] == "JobSet":
        jobs = [job["template"]["spec"] for job in spec["replicatedJobs"]]
        return [{"apiVersion": "batch/v1", "kind": "Job", "metadata": name, "spec": job} for job in jobs]
    if manifest["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        return [
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": name, "template": group["template"]}
            for group in [*groups, {"template": spec["submitterPodTemplate"]}]
        ]
    return [manifest]


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for one in plain_objects(manifest):
        template = one.get("template") or one.get("spec", {}).get("template")
        found += [template["spec"]] if template else []
    return found


def test_every_manifest_is_valid(out: Path) -> None:
    kinds = {manifest["kind"] for manifest in manifests(out)}
    assert {"Namespace", "ServiceAccount", "JobSet", "Deployment", "Service"} < kinds
    assert kinds & {"Job", "RayJob"}
    for manifest in manifests(out):
        for one in plain_objects(manifest):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_the_jobset_has_the_fields_of_its_kind(out: Path) -> None:
    """Read into the classes of its API, nothing of it is lost, as an unknown or misplaced field would be."""
    (jobset,) = [manifest for manifest in manifests(out) if manifest["kind"] == "JobSet"]
    read = JobsetV1alpha2JobSet.from_dict(jobset)
    assert read is not None
    assert not lost(jobset, read.to_dict())


def lost(written: Any, read: Any, place: str = "") -> list[str]:
    """The places of a document that another does not have."""
    if isinstance(written, dict):
        absent = [f"{place}.{key}" for key in written if key not in read]
        there = {key: value for key, value in written.items() if key in read}
        return absent + [each for key, value in there.items() for each in lost(value, read[key], f"{place}.{key}")]
    if isinstance(written, list):
        pairs = enumerate(zip(written, read, strict=True))
        return [each for number, (one, other) in pairs for each in lost(one, other, f"{place}[{number}]")]
    return []


def test_pods_run_without_rights_and_take_secrets_by_reference(out: Path) -> None:
    found = [pod for manifest in manifests(out) for pod in pods(manifest)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            reads = container["name"] != "ray-job-submitter"
            assert ({"secretRef": {"name": "biovfm-s3", "optional": True}} in container.get("envFrom", [])) is reads
            assert "memory" in container["resources"]["limits"]
    assert "SECRET" not in "".join(path.read_text() for path in (out / "kubernetes").iterdir())


def test_training_asks_for_its_gpus_and_runs_torchrun_on_every_node(out: Path) -> None:
    (jobset,) = [manifest for manifest in manifests(out) if manifest["kind"] == "JobSet"]
    (job,) = plain_objects(jobset)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["completions"] == 8
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert container["image"].endswith("-cuda")
    assert {"--nnodes=8", "--nproc-per-node=8", "--out=s3://biovfm/runs/dinov2-b"} <= set(container["args"])


def test_commands_in_manifests_have_the_options_that_they_use(out: Path) -> None:
    """Each is given to the real command line, which must find nothing to say about its options."""
    from infra.cli import build

    found = []
    for manifest in manifests(out):
        if manifest["kind"] == "RayJob":
            found.append(manifest["spec"]["entrypoint"].split()[1:])
            continue
        for pod in pods(manifest):
            words = pod["containers"][0]["args"]
            found.append(words[words.index("biovfm") + 1 :] if "biovfm" in words else words)
    assert len(found) >= 3
    for words in found:
        build(words[0]).parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_takes_it_as_a_whole(out: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(out / "kubernetes")], capture_output=True, text=True, check=True)
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) == len(manifests(out)) + 1  # and the settings
    (settings,) = [one for one in documents if one["kind"] == "ConfigMap"]
    assert settings["data"] == {"AWS_REGION": "us-east-1", "BIOVFM_METRICS_ADDRESS": "0.0.0.0"}


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.process
def test_the_containerfile_is_clean(out: Path) -> None:
    path = out / "container" / "Dockerfile"
    done = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = path.read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)", text, re.MULTILINE) == ["build", "base", "cpu", "cuda"]
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in text
    assert text.count("USER 10001:10001") == 2


@pytest.mark.process
def test_scripts_are_clean_shell(out: Path) -> None:
    scripts = sorted((out / "slurm").iterdir())
    assert [path.name for path in scripts if path.suffix == ".sbatch"] == [
        "ingest.sbatch",
        "pretrain.sbatch",
        "probe.sbatch",
        "sweep.sbatch",
    ]
    done = subprocess.run([tool("shellcheck"), *map(str, scripts)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert (out / "slurm" / "submit.sh").stat().st_mode & 0o111


@pytest.mark.process
def test_submitting_calls_sbatch_with_scripts_that_are_there(out: Path, tmp_path: Path) -> None:
    """The real script with a stand-in for sbatch, which this machine lacks: it notes what it is given."""
    stand_in = tmp_path / "sbatch"
    stand_in.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n')
    stand_in.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    subprocess.run([str(out / "slurm" / "submit.sh")], check=True, env={"PATH": path})
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 + 1 + 1 + 1
    for call in calls:
        (script,) = re.findall(r"\S+\.sbatch", call)
        assert (out / "slurm" / script).is_file()
    assert "--array=0-15" in calls[0]
    assert "--nodes=8" in calls[2]


def test_terraform_gives_each_caller_what_it_needs(out: Path) -> None:
    text = (out / "terraform" / "main.tf").read_text()
    tree = hcl2.loads(text)
    kinds = {name.strip('"') for block in tree["resource"] for name in block}
    assert {"aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration", "aws_iam_role", "aws_iam_role_policy"} <= kinds
    assert '"s3:*"' not in text
    assert 'pages    = { read = ["data/*"], write = [] }' in text


@pytest.mark.process
def test_terraform_is_formatted(out: Path) -> None:
    command = [tool("terraform"), "fmt", "-check", "-diff", str(out / "terraform")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def changed(**changes: dict[str, Any]) -> Values:
    beginning = load_yaml(BEGINNING)
    return values(**{section: {**beginning.get(section, {}), **keys} for section, keys in changes.items()})


def test_roles_reach_the_dataset_and_the_runs_that_the_values_name(tmp_path: Path) -> None:
    storage = {"bucket": "ours", "dataset": "s3://ours/sets/v1"}
    pretrain = {"data": "locks/a.lock.yaml", "out": "s3://ours/trained/2026/a"}
    render(changed(storage=storage, pretrain=pretrain), tmp_path)
    text = (tmp_path / "terraform" / "main.tf").read_text()
    assert 'ingest   = { read = ["*"], write = ["sets/v1/*"] }' in text
    assert 'training = { read = ["sets/v1/*", "trained/2026/*"], write = ["trained/2026/*"] }' in text
    assert 'prefix = "sets/v1/staging/"' in text


def test_what_is_left_out_follows_the_bucket() -> None:
    found = parse(Values, {"storage": {"bucket": "ours"}}, where="test")
    assert found.storage.dataset == found.pretrain.data == "s3://ours/data"
    assert found.pretrain.out == "s3://ours/runs/dinov2-short"


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("storage", {"dataset": "s3://others/data"}, "not in a folder of storage.bucket"),
        ("storage", {"dataset": "s3://biovfm"}, "not in a folder of storage.bucket"),
        ("storage", {"bucket": "ours"}, "storage.dataset is s3://biovfm/data"),
        ("storage", {"dataset": "./data"}, "give a URL"),
        ("storage", {"dataset": "--help"}, "give a URL"),
        ("pretrain", {"out": "s3://others/runs/a"}, "pretrain.out"),
        ("pretrain", {"recipe": ""}, "recipe"),
        ("image", {"repository": ""}, "repository"),
    ],
)
def test_values_that_would_not_work_are_refused(section: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(**{section: keys})


@pytest.mark.parametrize("engine", ["job", "ray"])
@pytest.mark.parametrize("word", ["123", "no", "null", "1e3", "0x10"])
def test_names_that_yaml_would_read_as_something_else_stay_text(word: str, engine: str, tmp_path: Path) -> None:
    sources = [{"source": word, "raw": "s3://biovfm/raw"}]
    keys = {"namespace": word, "secret": word}
    render(
        changed(ingest={"engine": engine, "sources": sources}, kubernetes=keys, pretrain={"recipe": f"{word}:"}),
        tmp_path,
    )
    for manifest in manifests(tmp_path):
        for one in plain_objects(manifest):
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        assert manifest["metadata"].get("namespace", word) == word
    (job,) = [one for one in manifests(tmp_path) if one["metadata"]["name"].endswith(f"-{word}")]
    assert word in (job["spec"]["entrypoint"].split() if engine == "ray" else pods(job)[0]["containers"][0]["args"])


def test_every_pod_is_let_into_the_namespace(out: Path) -> None:
    """What the Pod Security Standard `restricted` asks of each container, KubeRay's submitter among them."""
    (namespace,) = [one for one in manifests(out) if one["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    found = [pod for manifest in manifests(out) for pod in pods(manifest)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_kuberay_needs_of_an_image_is_in_it(tmp_path: Path) -> None:
    """Its probes call wget, and jobs are submitted to the dashboard, which plain Ray does not bring."""
    render(changed(image={"ray": "2.99.0"}), tmp_path)
    text = (tmp_path / "container" / "Dockerfile").read_text()
    assert re.search(r"install .*\bwget\b", text)
    assert '"ray[default]"' in text
    assert "s/^ray==.*/ray==2.99.0/" in text


def test_a_ray_worker_runs_as_many_tasks_as_it_has_processors(tmp_path: Path) -> None:
    """Without a limit Ray would count those of the machine."""
    given = {"engine": "ray", "cpus": 6, "sources": [{"source": "a", "raw": "s3://b/r"}]}
    render(changed(ingest=given), tmp_path)
    (job,) = [one for one in manifests(tmp_path) if one["kind"] == "RayJob"]
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["rayStartParams"] == {"num-cpus": "6"}
    assert group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "6"


def test_a_long_source_leaves_kuberay_room_for_its_suffixes(tmp_path: Path) -> None:
    render(changed(ingest={"engine": "ray", "sources": [{"source": "a" * 42, "raw": "s3://b/r"}]}), tmp_path)
    (job,) = [one for one in manifests(tmp_path) if one["kind"] == "RayJob"]
    assert len(job["metadata"]["name"]) <= 47


@pytest.mark.slow
@pytest.mark.skipif("BIOVFM_TERRAFORM_PLUGINS" not in os.environ, reason="no folder with Terraform's AWS provider")
def test_terraform_validates_and_plans_it(out: Path, tmp_path: Path) -> None:
    """Against the schema of the real provider, which is asked for nothing else: no account is needed to plan."""
    folder = shutil.copytree(out / "terraform", tmp_path / "terraform")
    skips = ("skip_credentials_validation", "skip_requesting_account_id", "skip_metadata_api_check")
    lines = "".join(f"  {name} = true\n" for name in skips)
    (folder / "offline_override.tf").write_text(f'provider "aws" {{\n{lines}}}\n')
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}

    def terraform(*words: str) -> str:
        command = [tool("terraform"), f"-chdir={folder}", *words, "-no-color"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    terraform("init", "-input=false", f"-plugin-dir={os.environ['BIOVFM_TERRAFORM_PLUGINS']}")
    assert json.loads(terraform("validate", "-json"))["valid"] is True
    principal = "trusted_principal=arn:aws:iam::111111111111:role/nodes"
    assert "Plan: 10 to add, 0 to change, 0 to destroy" in terraform("plan", "-input=false", "-var", principal)


def test_compose_is_yaml_with_every_service_confined(out: Path) -> None:
    tree = yaml.safe_load((out / "compose" / "compose.yaml").read_text())
    assert set(tree["services"]) == {"s3", "ingest", "serve"}
    for name in ("ingest", "serve"):
        assert tree["services"][name]["read_only"] is True
        assert tree["services"][name]["cap_drop"] == ["ALL"]
    assert tree["services"]["serve"]["ports"] == ["127.0.0.1:8080:8080"]


def test_no_placeholder_is_left_and_rendering_twice_is_the_same(out: Path, tmp_path: Path) -> None:
    for path in out.rglob("*"):
        assert path.is_dir() or "@{" not in path.read_text()
    render(values(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    render(values(), tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_the_command_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "values"]) == 0
    path = tmp_path / "values.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["deploy", "render", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "kubernetes/ingest-chexpert.yaml" in said["files"]
    assert all((tmp_path / "out" / name).is_file() for name in said["files"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pretrain: {node: 3}", "unknown key 'pretrain.node', did you mean 'nodes'?"),
        ("storage: {bucket: My_Bucket}", "storage.bucket"),
        ("image: {tag: 'a; rm -rf /'}", "image.tag"),
        ("pretrain: {nodes: 0}", "pretrain.nodes"),
        ("ingest: {sources: [{source: a, raw: x}, {source: a, raw: y}]}", "source a stands there twice"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    assert main(["deploy", "render", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
