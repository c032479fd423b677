"""The manifests against the published schemas, and against the meshes that they are for.

JobSet's and Kubernetes' own come with packages. ``IMMUNAX_CRDS`` names a folder with the YAML of Kueue's and JobSet's custom
resource definitions (``config/components/crd/bases`` of their repositories); without it their schemas are not compared.
"""

import os
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from tpu import job, manifests, slices
from tpu.manifests import Cluster
from tpu.slices import GENERATIONS, ROOT, Shape

MESHES = sorted(path.stem for path in (ROOT / "conf" / "mesh").glob("v*.yaml"))
CLUSTER = Cluster("registry/immunax:1", "sweep", variables={"IMMUNAX_CACHE": "gs://b/cache", "WORD": 'a "word": {x}'})
ODD = ("+defense=tar", "defense.attacker.lora={_target_: x, rank: 8}", 'run="it\'s: $name"', "a=#b", "c=é", "d=- x")


def jobset(mesh, slices_=1, **more):
    given = job.read(["immunax.train", f"mesh={mesh}", *ODD])
    text = manifests.jobset("pod1", given, slices.of_mesh(mesh), slices_, CLUSTER, "sweep", "sweep/seed=1", **more)
    return yaml.safe_load(text)


def queues(mesh, at_once=16):
    return list(yaml.safe_load_all(manifests.kueue("sweep", slices.of_mesh(mesh), at_once, CLUSTER)))


def template(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["replicas"], replicated["template"]["spec"]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("count", [1, 2])
def test_the_pods_of_a_jobset_have_as_many_chips_as_the_mesh_has_devices(mesh, count):
    sizes = yaml.safe_load((ROOT / "conf" / "mesh" / f"{mesh}.yaml").read_text())
    devices = sizes["attack"] * sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    replicas, spec = template(jobset(mesh, count))
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completions"] == spec["parallelism"]
    assert replicas == count
    assert spec["completions"] * container["resources"]["limits"]["google.com/tpu"] == devices


@pytest.mark.parametrize("mesh", MESHES)
def test_the_words_of_a_command_arrive_in_the_container_as_they_were_written(mesh):
    (container,) = template(jobset(mesh))[1]["template"]["spec"]["containers"]
    assert container["args"] == ["immunax.train", f"mesh={mesh}", *ODD]
    assert {each["name"]: each["value"] for each in container["env"]} == CLUSTER.variables


def test_a_jobset_is_one_by_jobsets_own_model():
    for count in (1, 2):
        manifest = jobset("v5e_256", count)
        assert JobsetV1alpha2JobSet.from_dict(manifest).to_dict() == manifest


@pytest.mark.parametrize("version", ["1.29.0", "1.37.0"])
def test_the_job_within_a_jobset_is_one_by_kubernetes_schema_with_no_field_too_many(version):
    manifest = jobset("v5e_256")
    one = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": template(manifest)[1]}
    kubernetes_validate.validate(one, version, strict=True)
    one["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, version, strict=True)


def closed(schema):
    """A schema that takes no field that it does not name, as a cluster would drop it in silence."""
    if not isinstance(schema, dict):
        return schema
    found = {
        key: {name: closed(one) for name, one in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    return found


def published(manifest):
    folder = os.environ.get("IMMUNAX_CRDS")
    if folder is None:
        pytest.skip("IMMUNAX_CRDS names no folder of custom resource definitions")
    group, version = manifest["apiVersion"].split("/")
    definitions = (yaml.safe_load(path.read_text()) for path in sorted(Path(folder).glob(f"{group}_*.yaml")))
    (found,) = [each["spec"] for each in definitions if each["spec"]["names"]["kind"] == manifest["kind"]]
    (one,) = [each for each in found["versions"] if each["name"] == version]
    assert one["served"]
    schema = closed(one["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


@pytest.mark.parametrize("kind", ["ResourceFlavor", "ClusterQueue", "LocalQueue", "JobSet"])
def test_each_manifest_is_one_by_its_published_definition(kind):
    every = [*queues("v5e_16"), jobset("v5e_256", 2)]
    (manifest,) = [each for each in every if each["kind"] == kind]
    schema = published(manifest)
    jsonschema.validate(manifest, schema)
    manifest["spec"]["unheard"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_queue_has_the_nodes_that_its_jobsets_ask_for_and_room_for_as_many_slices(mesh):
    flavor, cluster, local = queues(mesh, 3)
    spec = template(jobset(mesh))[1]["template"]["spec"]
    assert flavor["spec"]["nodeLabels"] == spec["nodeSelector"]
    (group,) = cluster["spec"]["resourceGroups"]
    (used,) = group["flavors"]
    assert used["name"] == flavor["metadata"]["name"]
    assert used["resources"] == [{"name": "google.com/tpu", "nominalQuota": 3 * slices.of_mesh(mesh).chips}]
    assert local["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    labels = jobset(mesh)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]


def test_a_set_starts_again_for_142_and_143_and_a_machine_that_is_taken_and_for_nothing_else():
    manifest = jobset("v5e_16")
    rules = template(manifest)[1]["podFailurePolicy"]["rules"]
    assert rules[0] == {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert rules[1]["action"] == "FailJob"
    assert rules[1]["onExitCodes"] == {"containerName": "immunax", "operator": "NotIn", "values": [142, 143]}
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.mark.parametrize(
    ("type_", "topology", "machines", "pods"),
    [
        ("v5litepod-8", "2x4", 1, 2),
        ("v5litepod-16", "4x4", 4, 4),
        ("v5litepod-256", "16x16", 64, 64),
        ("v6e-8", "2x4", 1, 2),
        ("v6e-1", "1x1", 1, 1),
        ("v5p-8", "2x2x1", 1, 1),
        ("v5p-16", "2x2x2", 2, 2),
        ("v5p-512", "4x8x8", 64, 64),
    ],
)
def test_a_type_is_a_topology_with_its_machines(type_, topology, machines, pods):
    shape = slices.of_type(type_)
    assert (shape.topology, shape.machines, shape.pods) == (topology, machines, pods)
    assert shape.pods * shape.chips_a_pod == shape.chips


def test_every_type_and_topology_is_found_by_its_own_name():
    for generation in GENERATIONS.values():
        for topology in generation.topologies:
            shape = Shape(generation, topology)
            assert slices.of_type(shape.type) == shape
            assert slices.of_topology(shape.mesh) == shape
