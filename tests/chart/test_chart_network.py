"""NetworkPolicies: which pods may connect to which servers."""

from support.chart import Object, pods, render


def selected(selector: Object, labels: dict[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(one["operator"] == "Exists" and one["key"] in labels for one in selector.get("matchExpressions", []))


class Network:
    """The connections that the NetworkPolicies of one namespace allow between its pods. A connection passes in a
    direction when no policy selects the pod, or a rule of one that does names the other pod and the port."""

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [found["spec"] for found in objects if found["kind"] == "NetworkPolicy"]

    def passes(self, source: dict[str, str], target: dict[str, str], port: int) -> bool:
        return self._side("Egress", source, target, port) and self._side("Ingress", target, source, port)

    def reaches(self, source: dict[str, str], cidr: str, port: int) -> bool:
        """Whether a pod may call an address outside of the cluster."""
        return any(
            port in [one["port"] for one in rule["ports"]] and {"ipBlock": {"cidr": cidr}} in rule["to"]
            for policy in self.policies
            if selected(policy["podSelector"], source)
            for rule in policy.get("egress", [])
        )

    def _side(self, direction: str, pod: dict[str, str], other: dict[str, str], port: int) -> bool:
        key = direction.lower()
        mine = [
            policy
            for policy in self.policies
            if direction in policy["policyTypes"] and selected(policy["podSelector"], pod)
        ]
        return not mine or any(
            port in [one["port"] for one in rule["ports"]]
            and any(
                "podSelector" in peer and "namespaceSelector" not in peer and selected(peer["podSelector"], other)
                for peer in rule["from" if key == "ingress" else "to"]
            )
            for policy in mine
            for rule in policy.get(key, [])
        )


def test_pods_reach_the_servers_they_need_and_no_others() -> None:
    objects = render("minimal")
    found = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    who = {
        "pipeline": {"workflows.argoproj.io/workflow": "a-run", "pipelines.kubeflow.org/v2_component": "true"},
        "mlflow": found["press-lmmpress-mlflow"],
        "postgresql": found["press-lmmpress-postgresql"],
        "minio": found["press-lmmpress-minio"],
        "prepare": found["press-lmmpress-prepare"],
        "check": found["press-lmmpress-check-store"],
        "stranger": {"app": "notebook"},
    }
    ports = {"mlflow": 5000, "postgresql": 5432, "minio": 9000, "pipeline": 8080, "prepare": 8080, "check": 8080}
    network = Network(objects)
    allowed = {
        (source, target)
        for source in who
        for target in ports
        if source != target and network.passes(who[source], who[target], ports[target])
    }
    needed = {("mlflow", "postgresql"), ("mlflow", "minio")}
    needed |= {(source, target) for source in ("pipeline", "prepare", "check") for target in ("mlflow", "minio")}
    assert allowed == needed
    # DNS, and Kubernetes' API for the pipeline alone
    assert network.reaches(who["pipeline"], "0.0.0.0/0", 6443)
    for name in ("mlflow", "postgresql", "minio", "prepare"):
        assert not network.reaches(who[name], "0.0.0.0/0", 6443)
        assert any(
            selected(policy["podSelector"], who[name])
            and any({"port": 53, "protocol": "UDP"} in rule["ports"] for rule in policy.get("egress", []))
            for policy in network.policies
        )


def test_outside_servers_are_reached_on_their_ports() -> None:
    pipeline = {"workflows.argoproj.io/workflow": "a-run"}
    network = Network(render("external"))
    assert network.reaches(pipeline, "10.1.0.0/16", 8443)
    assert not network.reaches(pipeline, "10.1.0.0/16", 443)
    assert network.reaches(pipeline, "0.0.0.0/0", 443)
    objects = render("database")
    server = pods(objects)["press-lmmpress-mlflow"]["metadata"]["labels"]
    network = Network(objects)
    assert network.reaches(server, "10.2.0.0/16", 6432)
    assert network.reaches(pipeline, "0.0.0.0/0", 9000)
    assert not network.reaches(pipeline, "10.2.0.0/16", 6432)
