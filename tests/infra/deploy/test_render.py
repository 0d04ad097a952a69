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
from infra.commands._deploy_check import check
from infra.deploy.render import render
from infra.deploy.values import Values
from shards.errors import ConfigError
from shards.settings import load_yaml, parse

BEGINNING = Path(__file__).parents[3] / "infra" / "deploy" / "values.yaml"
KUBERNETES = "1.32"
ROLE = "arn:aws:iam::1:role/biovfm-ingest"
PER_PLATFORM = {"compose", "container", "kubernetes", "slurm", "terraform"}


def values(**changes: Any) -> Values:
    return parse(Values, {**load_yaml(BEGINNING), **changes}, where="test")


@pytest.fixture(scope="module", params=["job", "ray"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(str(request.param))
    ingest = {**load_yaml(BEGINNING)["ingest"], "engine": request.param}
    written = render(values(ingest=ingest, kubernetes={"roles": {"ingest": ROLE}}), folder)
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
            assert ({"secretRef": {"name": "biovfm-secret", "optional": True}} in container.get("envFrom", [])) is reads
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
    assert "--set=run.unit_images=32" in container["args"]


@pytest.mark.parametrize("gpus", [1, 8])
def test_every_process_of_a_training_node_has_a_port_for_its_figures(gpus: int, tmp_path: Path) -> None:
    render(changed(pretrain={"gpus": gpus}), tmp_path)
    (jobset,) = [manifest for manifest in manifests(tmp_path) if manifest["kind"] == "JobSet"]
    (pod,) = pods(jobset)
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports.pop("rendezvous") == 29500
    assert list(ports) == ["metrics", *(f"metrics-{rank}" for rank in range(1, gpus))]
    assert list(ports.values()) == list(range(9400, 9400 + gpus))


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


def test_the_pages_are_scraped_and_answer_by_the_names_of_the_cluster(out: Path) -> None:
    (serve,) = [one for one in manifests(out) if one["kind"] == "Deployment"]
    template = serve["spec"]["template"]
    (container,) = template["spec"]["containers"]
    port = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
    assert template["metadata"]["annotations"] == port
    fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container["env"]}
    assert fields == {"POD_IP": "status.podIP"}
    names = {word.removeprefix("--allow-host=") for word in container["args"] if word.startswith("--allow-host=")}
    service = ("serve", "serve.biovfm", "serve.biovfm.svc", "serve.biovfm.svc.cluster.local")
    assert names == {"$(POD_IP)", *service}


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_takes_it_as_a_whole(out: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(out / "kubernetes")], capture_output=True, text=True, check=True)
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) == len(manifests(out)) + 1  # and the settings
    (settings,) = [one for one in documents if one["kind"] == "ConfigMap"]
    assert settings["data"] == {"AWS_REGION": "us-east-1", "BIOVFM_METRICS_ADDRESS": "0.0.0.0"}
    asked = re.findall(r"configMapRef:\s*\{?\s*name: ([\w-]+)", done.stdout)
    assert set(asked) == {settings["metadata"]["name"]}  # also in kinds that kustomize does not know


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
    """The real script with a stand-in for sbatch, which notes what it is given and where, and numbers the jobs."""
    stand_in = tmp_path / "sbatch"
    stand_in.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/calls\npwd > {tmp_path}/folder\nwc -l < {tmp_path}/calls\n'
    )
    stand_in.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    subprocess.run([str(out / "slurm" / "submit.sh")], check=True, env={"PATH": path}, cwd=tmp_path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 + 1 + 1
    assert Path((tmp_path / "folder").read_text().strip()) == tmp_path.resolve()  # paths are the caller's
    for call in calls:
        (script,) = re.findall(r"\S+\.sbatch", call)
        assert Path(script).is_absolute()
        assert Path(script).is_file()
    assert "--array=0-15" in calls[0]
    assert "--mem-per-cpu=2048M" in calls[0]
    assert "--dependency" not in calls[0] + calls[1]
    assert "--nodes=8" in calls[2]
    assert "--mem-per-cpu=4096M" in calls[2]
    assert "--dependency=afterok:1:2" in calls[2]
    assert "--dependency=afterok:3" in calls[3]


@pytest.mark.process
def test_a_rank_of_slurm_knows_its_place_and_keeps_its_processors(out: Path, tmp_path: Path) -> None:
    """The real script with stand-ins for srun, scontrol and biovfm, which notes its environment."""
    written = {
        "scontrol": "echo node1",
        "srun": f"""printf '%s\\n' "$*" >> {tmp_path}/srun; while [[ $1 == --* ]]; do shift; done; exec "$@" """,
        "biovfm": f"env | sort > {tmp_path}/environment; echo '{{\"finished\": true}}'",
    }
    for name, text in written.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-4]",
        "SLURM_NTASKS": "32",
        "SLURM_PROCID": "11",
        "SLURM_LOCALID": "3",
        "SLURM_CPUS_PER_TASK": "6",
        "SLURM_STEP_TASKS_PER_NODE": "8(x4)",
    }
    script = out / "slurm" / "pretrain.sbatch"
    subprocess.run(["bash", str(script), "s3://b/data", "--out", "s3://b/run"], check=True, env=env)
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    wanted = {"RANK": "11", "WORLD_SIZE": "32", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "node1"}
    assert wanted.items() <= found.items()
    assert "--cpus-per-task=6" in (tmp_path / "srun").read_text()


def test_terraform_gives_each_caller_what_it_needs(out: Path) -> None:
    text = (out / "terraform" / "main.tf").read_text()
    tree = hcl2.loads(text)
    kinds = {name.strip('"') for block in tree["resource"] for name in block}
    assert {"aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration", "aws_iam_role", "aws_iam_role_policy"} <= kinds
    assert '"s3:*"' not in text
    assert 'pages    = { read = ["biovfm/data"], write = [] }' in text
    assert '"*"' not in text


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
    pretrain = {"data": "/locks/a.lock.yaml", "out": "s3://ours/trained/2026/a"}
    ingest = {
        "sources": [
            {"source": "a", "raw": "s3://theirs/raw/a/"},
            {"source": "b", "raw": "https://h/b.zip"},
            {"source": "c", "raw": "s3://all"},
        ]
    }
    render(changed(storage=storage, pretrain=pretrain, ingest=ingest), tmp_path)
    text = (tmp_path / "terraform" / "main.tf").read_text()
    assert 'ingest   = { read = ["all/*", "ours/sets/v1", "theirs/raw/a"], write = ["ours/sets/v1"] }' in text
    assert 'training = { read = ["ours/sets/v1", "ours/trained/2026"], write = ["ours/trained/2026"] }' in text
    assert 'prefix = "sets/v1/staging/"' in text


def test_a_run_at_the_root_of_the_bucket_gives_training_no_more_than_its_folder(tmp_path: Path) -> None:
    render(changed(pretrain={"out": "s3://biovfm/run"}), tmp_path)
    assert 'write = ["biovfm/run"] }' in (tmp_path / "terraform" / "main.tf").read_text()


def test_each_role_is_that_of_its_service_account(out: Path) -> None:
    accounts = {one["metadata"]["name"]: one for one in manifests(out) if one["kind"] == "ServiceAccount"}
    assert set(accounts) == {"ingest", "training", "pages"}
    assert accounts["ingest"]["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": ROLE}
    used = {pod["serviceAccountName"] for manifest in manifests(out) for pod in pods(manifest)}
    assert used == set(accounts)
    text = (out / "terraform" / "main.tf").read_text()
    assert '"system:serviceaccount:biovfm:${each.key}"' in text
    assert all(re.search(rf"^    {name} +=", text, re.MULTILINE) for name in accounts)


def test_a_source_of_ones_own_brings_its_options(tmp_path: Path) -> None:
    source = {"source": "our-us", "raw": "s3://biovfm/raw/us", "options": ["--modality=US", "--group=folder"]}
    for engine in ("job", "ray"):
        render(changed(ingest={"engine": engine, "sources": [source]}), tmp_path / engine)
        (job,) = [one for one in manifests(tmp_path / engine) if one["metadata"]["name"].endswith("-our-us")]
        words = job["spec"]["entrypoint"].split() if engine == "ray" else pods(job)[0]["containers"][0]["args"]
        assert {"--modality=US", "--group=folder"} <= set(words)
    assert "--modality=US --group=folder)" in (tmp_path / "job" / "slurm" / "submit.sh").read_text()


def test_a_source_that_is_no_longer_named_loses_its_manifest(tmp_path: Path) -> None:
    render(changed(), tmp_path)
    (tmp_path / "kubernetes" / "mine.yaml").write_text("kind: Mine")
    render(changed(ingest={"sources": []}), tmp_path)
    names = {path.name for path in (tmp_path / "kubernetes").iterdir()}
    assert not [name for name in names if name.startswith("ingest-")]
    assert "mine.yaml" in names


def test_a_cache_leaves_room_on_its_volume(tmp_path: Path) -> None:
    render(changed(kubernetes={"cache": "100Gi"}), tmp_path)
    (jobset,) = [one for one in manifests(tmp_path) if one["kind"] == "JobSet"]
    assert "--cache-gib=80.0" in pods(jobset)[0]["containers"][0]["args"]


def test_what_is_left_out_follows_the_bucket() -> None:
    found = parse(Values, {"storage": {"bucket": "ours"}}, where="test")
    assert found.storage.dataset == found.pretrain.data == "s3://ours/data"
    assert found.pretrain.out == "s3://ours/runs/dinov2-short"


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("storage", {"dataset": "s3://others/data"}, "no folder in storage.bucket"),
        ("storage", {"dataset": "s3://biovfm"}, "no folder in storage.bucket"),
        ("storage", {"dataset": "s3://biovfm/"}, "no folder in storage.bucket"),
        ("storage", {"region": "eu:"}, "'eu:' is not a region"),
        ("storage", {"bucket": "B"}, "'B' is not the name of a bucket"),
        ("storage", {"endpoint": "minio:9000"}, "is not a URL"),
        ("storage", {"bucket": "ours"}, "storage.dataset is s3://biovfm/data"),
        ("storage", {"dataset": "./data"}, "give a URL"),
        ("storage", {"dataset": "--help"}, "storage.dataset: '--help' is not text of letters"),
        ("pretrain", {"out": "s3://others/runs/a"}, "pretrain.out"),
        ("pretrain", {"out": "s3://biovfm/"}, "pretrain.out"),
        ("pretrain", {"out": "runs/a"}, "pretrain.out is runs/a: give a URL or an absolute path"),
        ("pretrain", {"data": "s3://others/data"}, "pretrain.data"),
        ("pretrain", {"nodes": True}, "pretrain.nodes"),
        ("pretrain", {"nodes": 10**20}, "pretrain.nodes"),
        ("probe", {"checkpoints": [""]}, "probe.checkpoints"),
        ("ingest", {"sources": [{"source": "a", "raw": "-x"}]}, "ingest.sources.0.raw: '-x' is not text"),
        ("ingest", {"sources": [{"source": "a", "raw": "/r", "options": ["--a b"]}]}, "is not an option"),
        ("slurm", {"time": "99:99:99"}, "'99:99:99' is not a time"),
        ("slurm", {"time": 43200}, "YAML reads 43200 here, which is no text: write it in quotes"),
        ("slurm", {"pretrain_time": "00:02:00"}, "00:10:00 at least"),
        ("slurm", {"account": 1234}, "write it in quotes"),
        ("compose", {"raw": "data/raw"}, "is not a folder that begins with / or ./"),
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
    assert "-bucket=biovfm" in tree["services"]["s3"]["command"]  # else there would be none
    assert "s3://biovfm/data" in tree["services"]["serve"]["command"]
    words = tree["services"]["serve"]["command"]
    assert words[words.index("--allow-host") + 1] == "serve"


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


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("ingest", {"sources": [{"source": "chexprt", "raw": "s3://b/r"}]}, r"sources.0.source: chexprt .* chexpert\?"),
        (
            "ingest",
            {"sources": [{"source": "mine", "raw": "/r", "options": ["--modalty=US"]}]},
            r"sources.0.options: .*modalty",
        ),
        ("pretrain", {"recipe": "dinov2-shor"}, r"pretrain.recipe: no recipe .* dinov2-short\?"),
        ("pretrain", {"nodes": 3}, "does not divide into 3 nodes of 8 GPUs"),
        ("pretrain", {"options": []}, "does not divide into 8 nodes of 8 GPUs and whole units of 64"),
        ("pretrain", {"options": ["--stop"]}, "pretrain.options: .*--stop"),
        ("probe", {"tasks": "brest"}, r"probe.tasks: .* did you mean breastmnist\?"),
    ],
)
def test_values_with_which_a_command_would_end_at_its_start_are_refused(
    section: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(changed(**{section: keys}), where="values.yaml")
    assert re.search(message, str(caught.value))
    assert str(caught.value).startswith("values.yaml: ")


def test_the_values_to_begin_with_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(changed(), where="values.yaml")
    assert main(["deploy", "render", str(BEGINNING), "--out", str(tmp_path / "out")]) == 0
    assert "kubernetes/pretrain-jobset.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["s3://bucket/x", ""])
def test_a_place_that_is_no_folder_is_refused(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "render", str(BEGINNING), "--out", out]) == 2
    assert "is no folder of this machine" in capsys.readouterr().err
