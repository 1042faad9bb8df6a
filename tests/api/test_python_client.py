"""The Python client of Kubernetes against a server that runs."""

import pytest

from tests.api.conftest import missing

WHERE = ("loopscope.dev", "v1alpha1", "default", "experiments")


@pytest.fixture
def client(kubeconfig):
    try:
        import kubernetes
    except ImportError:
        missing("the Python client is not installed: make test-api installs it")
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as opened:
        yield kubernetes.client.CustomObjectsApi(opened)


def test_list_get_patch_and_delete(client):
    from kubernetes.client import ApiException

    (found,) = client.list_namespaced_custom_object(*WHERE)["items"]
    assert found["metadata"]["name"] == "x"
    client.patch_namespaced_custom_object(*WHERE, "x", {"spec": {"maxTokens": 64}})
    read = client.get_namespaced_custom_object(*WHERE, "x")
    assert read["spec"]["maxTokens"] == 64
    read["spec"]["maxTokens"] = 32
    stored = client.replace_namespaced_custom_object(*WHERE, "x", read)
    assert stored["spec"]["maxTokens"] == 32
    with pytest.raises(ApiException) as refused:
        client.replace_namespaced_custom_object(*WHERE, "x", read)
    assert refused.value.status == 409
    with pytest.raises(ApiException) as refused:
        client.patch_namespaced_custom_object(*WHERE, "x", {"spec": {"maxTokens": -1}})
    assert refused.value.status == 422
    assert client.delete_namespaced_custom_object(*WHERE, "x")["status"] == "Success"
    del read["metadata"]["resourceVersion"]
    assert client.create_namespaced_custom_object(*WHERE, read)["metadata"]["name"] == "x"


def test_a_watch_goes_on_from_its_version_and_a_lost_one_says_so(client):
    from kubernetes.client import ApiException
    from kubernetes.watch import Watch

    listed = client.list_namespaced_custom_object(*WHERE)
    version = listed["metadata"]["resourceVersion"]
    client.patch_namespaced_custom_object(*WHERE, "x", {"metadata": {"labels": {"a": "b"}}})
    follow = Watch().stream(
        client.list_namespaced_custom_object, *WHERE, resource_version=version, timeout_seconds=2
    )
    events = list(follow)
    assert [one["type"] for one in events] == ["MODIFIED"]
    assert events[0]["object"]["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(ApiException) as lost:
        list(
            Watch().stream(
                client.list_namespaced_custom_object, *WHERE, resource_version=str(10**9)
            )
        )
    assert lost.value.status == 410
